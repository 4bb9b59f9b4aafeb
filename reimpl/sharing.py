"""One training shared among processes: which part of each batch is whose, and who they are.

The process that does the job is rank 0. It starts the others as `python -m reimpl.engines.rank`,
keeps a pipe to each, and alone measures and keeps records. When one dies, the others do, too.
"""

import io
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import (  # where torch documents them
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from reimpl import children
from reimpl.errors import ReimplError, RequestError, RunError

PATIENCE = timedelta(hours=6)
"""How long a process waits for another, which may be measuring; the dead are noticed sooner."""
NOTICE = 10.0
"""Seconds in which a process whose end has stopped the others can be seen to have ended."""
HANGING = 300.0
"""Seconds after the end of one process at which rank 0, should it still wait for it, ends, too."""
MEETING = 600.0
"""Seconds in which the other nodes come."""
QUIET = "TORCH_CPP_LOG_LEVEL"
"""Read when torch loads; without it a lost connection is a page of frames beside our line."""
GRACE = 10.0
"""Seconds that the others have to end once the work is done."""


class LostRankError(RunError):
    """A process of a shared training was killed; it may go better the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of a training that one process has."""

    rank: int = 0
    devices: int = 1
    """Processes on each node."""
    nodes: int = 1
    host: str = "127.0.0.1"
    """Where the store answers through which they find each other."""
    port: int = 0
    job: int = 0
    """Tells the trainings apart that use one store."""

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @property
    def node(self) -> int:
        """The number of its node."""
        return self.rank // self.devices

    @property
    def local(self) -> int:
        """Its place among those of its node, and the number of its GPU."""
        return self.rank % self.devices

    @property
    def alone(self) -> bool:
        """Whether the training is not shared."""
        return self.world == 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that measures and keeps."""
        return self.rank == 0

    def of(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Every `world`-th row of tensors (N, …); all where there are too few for everybody."""
        if self.alone or len(rows[0]) <= self.rank:
            return tuple(rows)
        return tuple(t[self.rank :: self.world] for t in rows)

    def counts(self, rows: int) -> float:
        """What the mean over its part of `rows` rows counts in a mean over processes."""
        mine = len(range(self.rank, rows, self.world))
        return self.world * mine / rows

    def total(self, value: Tensor) -> Tensor:
        """The mean over all processes, as their gradients are taken."""
        if not self.alone:
            distributed.all_reduce(value)
            value /= self.world
        return value

    def told(self, state: Any, device: torch.device) -> Any:
        """What rank 0 says, with its tensors on this process's device."""
        if self.alone:
            return state
        packed = [_packed(state) if self.leads else b""]
        distributed.broadcast_object_list(packed)
        return torch.load(io.BytesIO(packed[0]), map_location=device, weights_only=False)


ALONE = Share()


def _packed(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


# The processes


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    """A process of a shared training, as the one that started it sees it."""

    share: Share
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    said: Any = None
    """How it ended: `done`, or an error of its own."""

    def hear(self, timeout: float | None = 0.0) -> Any:
        """The next thing it says within so many seconds, or None."""
        with suppress(EOFError, OSError):
            if timeout is None or self.pipe.poll(timeout):
                return self.pipe.recv()
        return None

    def failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def judge(self) -> RunError | ReimplError | None:
        """What it died of."""
        ended = self.process.poll()
        self.said = self.said or self.hear()
        who = f"rank {self.share.rank} of {self.share.world}"
        if self.said and self.said[0] == "refused":
            return self.said[1]
        if self.said and self.said[0] == "failed":
            return RunError(f"{who} failed:\n{self.said[1]}")
        if ended is not None and self.said is None:
            how = signal.Signals(-ended).name if ended < 0 else f"status {ended}"
            return LostRankError(f"{who} ended with {how}")
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


@contextmanager
def shared(job: Any, *, devices: int, nodes: int, device: str) -> Iterator[Share]:
    """Start the other processes of a job's training, and end them with it.

    Yields:
        The share of this process, which is rank 0.

    Raises:
        LostRankError: one of them was killed.
        RunError: one of them failed; the traceback is its own.
        ReimplError: one of them was refused something.
    """
    if nodes > 1:
        ours, store, others = _called(job, Share(devices=devices, nodes=nodes))
    else:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        ours, others = Share(devices=devices, port=store.port), list[_Node]()
    shares = [replace(ours, rank=rank) for rank in range(1, devices)]
    with begun(job, shares) as processes:
        everybody = [*processes, *others]
        for node in others:
            node.wait()
        with _watched(everybody), joined(ours, device, store):
            try:
                yield ours
            except ReimplError:
                raise
            except Exception as error:
                blame(everybody, error)
                raise


@contextmanager
def begun(job: Any, shares: Sequence[Share]) -> Iterator[list[_Process]]:
    """Processes that take part in a job's training, ready to meet; none outlives the block.

    Raises:
        RunError: one ended before it began.
    """
    processes: list[_Process] = []
    try:
        processes += [_start(job, share) for share in shares]
        for process in processes:
            if (first := process.hear(None)) != ("ready",):
                process.said = first
                blame([process], None)
        yield processes
        _await_end(processes)
    finally:
        for process in processes:
            process.end()


@contextmanager
def joined(share: Share, device: str, store: Any = None) -> Iterator[None]:
    """Member of the group in which gradients are exchanged."""
    if store is None:
        store = TCPStore(share.host, share.port, is_master=False)
    if device.startswith("cuda"):
        torch.cuda.set_device(share.local)
    distributed.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=PrefixStore(f"group/{share.job}", store),
        rank=share.rank,
        world_size=share.world,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _start(job: Any, share: Share) -> _Process:
    nowhere = subprocess.DEVNULL  # what a paper prints, rank 0 prints, too
    process, pipe = children.start("reimpl.engines.rank", {QUIET: "ERROR"}, stdout=nowhere)
    with suppress(OSError):  # one that has gone is noticed when it is heard
        pipe.send((share, job))
    return _Process(share=share, process=process, pipe=pipe)


def blame(others: "Sequence[_Process | _Node]", error: BaseException | None) -> None:
    """Raise what one of the others died of, if one did.

    Raises:
        RunError: as for `shared`.
    """
    until = time.monotonic() + NOTICE
    while time.monotonic() < until:
        for other in others:
            if (cause := other.judge()) is not None:
                raise cause from error
        time.sleep(0.05)
    if error is None:
        raise LostRankError("a process of the shared training ended before it began")


@contextmanager
def _watched(others: "Sequence[_Process | _Node]") -> Iterator[None]:
    """End this process when it waits forever for one that has gone: a GPU's group may do so."""
    over = Event()

    def watch() -> None:
        while not over.wait(1.0):
            gone = next((other for other in others if other.failed()), None)
            if gone is not None:
                if not over.wait(HANGING):
                    os.write(2, f"reimpl: {gone.judge()}\n".encode())
                    os._exit(1)
                return

    Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _await_end(processes: Sequence[_Process]) -> None:
    until = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.process.wait(max(0.05, until - time.monotonic()))


# The nodes
#
# They meet in a store that node 0 keeps as long as its command goes on. Rank 0 puts each training
# there under the next number, each node answers whether its processes are ready, and later, if one
# failed, of what. An empty training says that it is over.


def meeting_place() -> tuple[str, int, int]:
    """Host and port of the store, and the number of this node, as torchrun's variables say.

    Raises:
        RequestError: one of them is not set, or is no number.
    """
    try:
        host = os.environ["MASTER_ADDR"]
        return host, int(os.environ["MASTER_PORT"]), int(os.environ["NODE_RANK"])
    except (KeyError, ValueError):
        hint = "on every node, as docs/clusters.md shows"
        raise RequestError(
            f"--num-nodes: set MASTER_ADDR, MASTER_PORT and NODE_RANK (0, 1, …) {hint}"
        ) from None


@contextmanager
def leading(nodes: int) -> Iterator[None]:
    """Keep the store in which other nodes are told what to train; at the end tell them to go.

    Raises:
        RequestError: this is not the first node, or its port is taken.
    """
    host, port, node = meeting_place()
    if node != 0:
        raise RequestError(f"NODE_RANK is {node}, and only node 0 plans and records")
    try:
        store = TCPStore(host, port, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise RequestError(f"MASTER_PORT={port}: {_first_line(error)}") from None
    try:
        yield
    finally:
        _post(store, b"")
        until = time.monotonic() + GRACE
        while store.add("left", 0) < nodes - 1 and time.monotonic() < until:
            time.sleep(0.1)


def _post(store: Any, message: bytes) -> int:
    number = store.add("jobs", 1)
    store.set(f"job/{number}", message)
    return number


@dataclass(slots=True, kw_only=True, eq=False)
class _Node:
    """The processes of another node, as rank 0 sees them."""

    node: int
    job: int
    store: Any

    def wait(self) -> None:
        """Until they are ready.

        Raises:
            ReimplError: they are not; says why.
        """
        until = time.monotonic() + MEETING
        while not self.store.check([f"ready/{self.job}/{self.node}"]):
            if self.failed():
                raise self.judge() or LostRankError(f"node {self.node} has gone")
            if time.monotonic() > until:
                raise RequestError(f"node {self.node} did not come within {MEETING:g} seconds")
            time.sleep(0.1)

    def failed(self) -> bool:
        return self.store.check([f"failed/{self.job}/{self.node}"])

    def judge(self) -> RunError | ReimplError | None:
        if not self.failed():
            return None
        return pickle.loads(self.store.get(f"failed/{self.job}/{self.node}"))


def _called(job: Any, share: Share) -> tuple[Share, Any, list[_Node]]:
    """Tell the other nodes of a training."""
    host, port, _ = meeting_place()
    store, watched = (TCPStore(host, port, is_master=False) for _ in range(2))
    number = _post(store, pickle.dumps(job))
    nodes = [_Node(node=n, job=number, store=watched) for n in range(1, share.nodes)]
    return replace(share, host=host, port=port, job=number), store, nodes


def follow(prepare: Callable[[Any, int], Any]) -> None:
    """Train shares of what node 0 trains, until it says that it is over.

    Args:
        prepare: the job, as it was sent, and the number of this node → the job as it is done here.

    Raises:
        RunError: node 0 has gone.
    """
    host, port, node = meeting_place()
    try:
        waited = timedelta(seconds=MEETING)
        store: Any = TCPStore(host, port, is_master=False, timeout=waited)
        number = 1
        while message := _next(store, number):
            job = pickle.loads(message)
            try:
                _take_part(store, prepare(job, node), number)
            except ReimplError as error:
                store.set(f"failed/{number}/{node}", pickle.dumps(error))
            number += 1
        store.add("left", 1)
    except distributed.DistError as error:
        raise RunError(f"node 0 has gone from {host}:{port}: {_first_line(error)}") from None


def _next(store: Any, number: int) -> bytes:
    while not store.check([f"job/{number}"]):
        time.sleep(0.2)
    return store.get(f"job/{number}")


def _take_part(store: Any, job: Any, number: int) -> None:
    """Train with the processes of this node, until they end or node 0 has gone on without them.

    Raises:
        ReimplError: one of them failed.
    """
    host, port, node = meeting_place()
    ours = Share(devices=job.devices, nodes=job.nodes, host=host, port=port, job=number)
    first = node * job.devices
    shares = [replace(ours, rank=rank) for rank in range(first, first + job.devices)]
    with begun(job, shares) as processes:
        store.set(f"ready/{number}/{node}", "")
        while store.add("jobs", 0) == number and any(p.process.poll() is None for p in processes):
            if any(process.failed() for process in processes):
                blame(processes, None)
            time.sleep(0.2)
        for process in processes:
            if process.failed() and (cause := process.judge()) is not None:
                raise cause


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
