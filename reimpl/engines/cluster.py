"""A Ray cluster: one that answers at an address, or one started on this machine.

What runs on it is this machine's code. It travels as Ray's `working_dir`, which comes first on a
worker's path, so an installed copy of ours on a node is never what runs. Everything else (Python,
torch, Ray itself) must be installed on the nodes.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from reimpl.engines import Room
from reimpl.engines.processes import ENVIRONMENT
from reimpl.errors import RequestError
from reimpl.jobs import Job
from reimpl.registry import Entry

ANSWER = 5.0
"""Seconds in which a cluster says something; Ray itself would try for minutes, and then exit."""
ASKING = 10.0
"""Seconds in which a cluster says which nodes it has, to a process that must start first."""
FRESH = 30.0
"""Seconds for which that is believed; a plan asks, and then the engine."""
OBJECT_STORE = 100_000_000
"""Bytes that Ray sets aside for a cluster on this machine: its workers read our cache itself."""
LEFT_BEHIND = ("__pycache__", "*.jsonl", ".git*", ".rayignore")  # Ray obeys the ignore files
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of Ray's begins: the preface of HTTP/2 and an empty frame of settings."""
SETTINGS_FRAME = 4
ALIVE = 0
"""A node's state, as Ray's protocol numbers it."""
UNIMPLEMENTED = 12
"""What a gRPC server answers that does not know the call."""
TOKEN_HINT = "a cluster that asks for a token wants RAY_AUTH_MODE=token set here, too"


# The code


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """The code that travels."""

    root: Path
    paper: str
    """The paper's folder, below the root."""
    model: str | None
    """`FILE.py:Class` of somebody's own model, below the root."""


@contextmanager
def packed(job: Job) -> Iterator[Parcel]:
    """A folder with reimpl, the baselines, the job's paper and its own model, if it has one.

    Raises:
        RequestError: there is no room for it.
    """
    with ExitStack() as stack:
        try:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="reimpl-")))
            parcel = _pack(job, root)
        except OSError as error:
            hint = "set TMPDIR to a folder with room"
            raise RequestError(
                f"the code cannot be packed for Ray ({_cause(error)}); {hint}"
            ) from None
        yield parcel


def _pack(job: Job, root: Path) -> Parcel:
    for package in ("reimpl", "baselines"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        _copy(Path(spec.origin).parent, root)
    return Parcel(root=root, paper=_pack_paper(job.entry, root), model=_pack_model(job, root))


def _cause(error: OSError) -> str:
    """What went wrong first; `copytree` goes on and tells it all in one list."""
    copying = isinstance(error, shutil.Error) and isinstance(error.args[0], list)
    return str(error.args[0][0][-1] if copying else error)


def _pack_paper(entry: Entry, root: Path) -> str:
    """Copy the package that the paper is imported from, or the folder it was given in."""
    package = _package(entry)
    if package is None:
        return _copy(entry.folder, root / "given").relative_to(root).as_posix()
    copy = _copy(package, root)
    return (copy / entry.folder.relative_to(package)).relative_to(root).as_posix()


def _package(entry: Entry) -> Path | None:
    """The topmost package of an installed paper."""
    if entry.target is None:
        return None
    spec = find_spec(entry.target.partition(":")[0].partition(".")[0])
    folders = spec.submodule_search_locations if spec else None
    return next((Path(f) for f in folders or () if entry.folder.is_relative_to(f)), None)


def _pack_model(job: Job, root: Path) -> str | None:
    if job.model is None:
        return None
    path, _, name = job.model.partition(":")
    (root / "model").mkdir()
    shutil.copy(path, root / "model")
    return f"model/{Path(path).name}:{name}"


def _copy(folder: Path, to: Path) -> Path:
    copied = shutil.copytree(
        folder, to / folder.name, ignore=shutil.ignore_patterns(*LEFT_BEHIND), dirs_exist_ok=True
    )
    return Path(copied)


# The connection


@contextmanager
def connected(address: str | None, code: Path, *, workers: int | None) -> Iterator[None]:
    """Be the driver of a cluster; without an address, of one that is started here and ends with us.

    Raises:
        RequestError: nothing answers at the address within seconds, or it is not for us.
    """
    if ray.is_initialized():
        raise RequestError("this process uses Ray already; call ray.shutdown() before")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unasked
    where = f"--address {address}" if address else "--engine ray"
    if address:
        nodes_at(address)
    own = {} if address else {"num_cpus": workers, "object_store_memory": OBJECT_STORE}
    runtime = {"working_dir": str(code), "env_vars": _environment(address)}
    _hush()
    try:
        with _own_handlers():
            ray.init(
                address=address or "local",
                runtime_env=runtime,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
    except (Exception, SystemExit) as error:  # Ray's own are of every kind
        hint = f" ({TOKEN_HINT})" if address and "RAY_AUTH_MODE" not in os.environ else ""
        raise RequestError(f"{where}: {one_line(error)}{hint}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _environment(address: str | None) -> dict[str, str]:
    """What workers find set; those of a distant node get their data from us, not from a mirror."""
    if address is None:
        return dict(ENVIRONMENT)
    cache = {name: os.environ[name] for name in ("REIMPL_CACHE",) if name in os.environ}
    return {**ENVIRONMENT, **cache, "REIMPL_DATA_MIRROR": ""}


def _hush() -> None:
    """Ray prints the last words of a node to our stdout, whatever it is told about logs."""
    import_module("ray._private.worker").print_to_stdstream = lambda *_, **__: None  # type: ignore[attr-defined]


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray takes over the signal by which a scheduler says that time is up; it stays ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_Answer = list[dict[str, float]] | RequestError
_answers: dict[str, tuple[float, _Answer]] = {}
"""Address → when it was asked, and what came of it."""


def nodes_at(address: str) -> list[dict[str, float]]:
    """What each node of the cluster at an address has, asked before Ray is let near it.

    Ray itself gives up on what is no cluster only after minutes, in many lines.

    Raises:
        RequestError: nothing answers within seconds, or it leads no cluster, or not for us.
    """
    asked, answer = _answers.get(address, (-FRESH, []))
    if time.monotonic() - asked > FRESH:
        try:
            answer = _listed(address, _checked(address))
        except RequestError as error:
            answer = error
        _answers[address] = time.monotonic(), answer
    if isinstance(answer, RequestError):
        raise answer
    return answer


def room_at(address: str, *, most: int | None, device: str) -> Room:
    """What jobs may take at once on the cluster at an address: threads on the CPU, jobs on a GPU.

    Args:
        address: as for `nodes_at`.
        most: the most jobs at once.
        device: where they compute.

    Raises:
        RequestError: as `nodes_at`.
    """
    nodes = nodes_at(address)
    memory = sum(node.get("memory", 0.0) for node in nodes) / 2**20
    there = sum(node.get("CPU" if device == "cpu" else "GPU", 0.0) for node in nodes)
    return Room(threads=max(1, min(int(there), most or sys.maxsize)), memory_mb=memory)


def _checked(address: str) -> str:
    """The `HOST:PORT` that is meant; something there speaks as Ray does."""
    if address.startswith("ray://"):
        hint = "run on one of its machines, or with `ray job submit`, as docs/clusters.md shows"
        raise RequestError(f"--address {address}: a Ray client cannot follow runs; {hint}")
    at = _latest() if address == "auto" else address
    host, _, port = at.rpartition(":")
    if not host or not port.isdecimal():
        hint = "write HOST:PORT as `ray start --head` prints it, or auto"
        raise RequestError(f"--address {address}: {hint}")
    try:
        is_ray = _answers_at(host.strip("[]"), int(port))
    except (OSError, UnicodeError, OverflowError) as error:  # no such name, no such port
        raise _nobody(address, str(error)) from None
    if not is_ray:
        raise RequestError(f"--address {address}: what answers there is not Ray")
    return at


def _nobody(address: str, why: str) -> RequestError:
    hint = "start a cluster with `ray start --head`, as docs/clusters.md shows"
    return RequestError(f"--address {address}: no cluster answers ({why}); {hint}")


def _listed(address: str, at: str) -> list[dict[str, float]]:
    """The nodes, asked for by a process of its own: where Ray does not like a token, it aborts."""
    try:
        asked = subprocess.run(
            [sys.executable, "-m", __name__, at],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASKING,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _nobody(address, f"it did not list its nodes within {ASKING:g} seconds") from None
    if asked.returncode == 0:
        return json.loads(asked.stdout)
    raise _mistake(address, asked.stdout.strip(), asked.stderr)


def _mistake(address: str, said: str, logged: str) -> RequestError:
    """What is wrong with an address whose cluster did not list its nodes."""
    if "uthentication" in said + logged:
        hint = TOKEN_HINT
        if os.environ.get("RAY_AUTH_MODE") == "token":
            hint = "RAY_AUTH_TOKEN or ~/.ray/auth_token must hold the one that its head has"
        return RequestError(f"--address {address}: the token is missing or wrong; {hint}")
    if said == str(UNIMPLEMENTED):
        hint = "write the address that `ray start --head` prints"
        return RequestError(f"--address {address}: what answers there leads no cluster; {hint}")
    return _nobody(address, said or "asking it ended in a crash")


def _list(at: str) -> int:
    """Write what each node has; where they are not told, why, and give 1."""
    client = import_module("ray._raylet").GcsClient
    try:
        nodes = client(address=at).get_all_node_info(timeout=ANSWER).values()
    except Exception as error:
        unknown = getattr(error, "rpc_code", None) == UNIMPLEMENTED
        sys.stdout.write(str(UNIMPLEMENTED) if unknown else one_line(error))
        return 1
    json.dump([dict(node.resources_total) for node in nodes if node.state == ALIVE], sys.stdout)
    return 0


def _latest() -> str:
    """The cluster that this machine joined last."""
    kept = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        return kept.read_text(encoding="utf-8").strip()
    except OSError:
        raise RequestError(
            "--address auto: this machine is in no Ray cluster; join one with `ray start`"
        ) from None


def _answers_at(host: str, port: int) -> bool:
    """Whether what listens speaks as Ray does.

    Raises:
        OSError: nothing listens, or it says nothing.
    """
    with socket.create_connection((host, port), timeout=ANSWER) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True
        connection.sendall(PREFACE)
        return connection.recv(9)[3:4] == bytes((SETTINGS_FRAME,))


def one_line(error: BaseException) -> str:
    """Its kind and what it says."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# What it has


def cpus() -> int:
    """Processors of all its nodes."""
    return int(sum(node.get("CPU", 0.0) for node in _nodes()))


def has_room_for(needs: Mapping[str, float]) -> bool:
    """Whether one of its nodes, were it idle, could take a run of these needs."""
    return any(
        all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in _nodes()
    )


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


if __name__ == "__main__":
    sys.exit(_list(sys.argv[1]))
