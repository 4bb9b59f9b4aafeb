import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from reimpl.context import Stopped
from reimpl.engines import Room, check_ray, cluster, cores, ray_task
from reimpl.engines import ray as engine
from reimpl.errors import RequestError
from reimpl.jobs import Job
from reimpl.planning import Probes, Request, plan
from reimpl.reproduction import reproduce
from tests.disturbing import (
    HALF,
    Attempts,
    begin,
    came_out,
    first_thing,
    measured,
    once_half_way,
    process_at,
    wait_until,
    with_a_run_taken,
)

MEMORY = 4 * 2**30
NODE: dict[str, Any] = {"num_cpus": 1, "memory": MEMORY, "object_store_memory": 80_000_000}


def request(paper: Path, runs: Path, **more: Any) -> Request:
    settings = {"seeds": 2, "wandb": "disabled", "engine": "ray", **more}
    return Request(paper="tiny", papers=(paper,), runs=runs, **settings)


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on this machine: two nodes of one processor each, and a head that only leads."""
    nodes = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    for _ in range(2):
        nodes.add_node(wait=True, **NODE)
    yield nodes
    nodes.shutdown()


def kill_node_of(worker: int) -> None:
    """kill -9 of a worker's node: of Ray's daemon there, and of all that it started."""
    raylet = next(p for p in psutil.Process(worker).parents() if p.name() == "raylet")
    for process in (raylet, *raylet.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def node_killed(mark: Path) -> Iterator[None]:
    """Meanwhile, the node of the run that has come half way is killed."""
    killer = Thread(target=lambda: kill_node_of(process_at(mark)))
    killer.start()
    yield
    killer.join()


def nothing(paper: Path, but: str = "None") -> None:
    """A paper whose runs do nothing, or only that."""
    code = paper / "__init__.py"
    fit = f"    fit=lambda variant, context: ({but}, {{'test/error': 15.9}})[1],\n"
    fit += "    example=example,\n"
    code.write_text(code.read_text().replace("    example=example,\n", fit))


# Nothing lost


def expected(paper: Path, runs: Path, **more: Any) -> object:
    """What comes out where nothing is killed and nothing is sent."""
    return came_out(reproduce(request(paper, runs, engine="processes", workers=1, **more)))


ONE: dict[str, Any] = {"variants": ("two-inputs",), "claims": ("test-error",)}


def vectorised(paper: Path) -> None:
    """Make the seeds of each variant train as one batch."""
    claims = paper / "claims.toml"
    claims.write_text(claims.read_text().replace("seeds = 5", "seeds = 5\nvectorised = true"))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [False, True], ids=["one-by-one", "vectorised"])
def test_runs_of_a_node_killed_half_way_go_on_from_their_checkpoint_and_change_no_number(
    slow_paper: Path,
    tmp_path: Path,
    two_nodes: Cluster,
    capfd: pytest.CaptureFixture[str],
    batch: bool,
) -> None:
    if batch:
        vectorised(slow_paper)
    undisturbed = expected(slow_paper, tmp_path / "a")
    once_half_way(slow_paper, tmp_path / "mark", "time.sleep(600)")
    capfd.readouterr()
    asked = request(slow_paper, tmp_path / "b", address=two_nodes.address)
    attempts = Attempts()
    with node_killed(tmp_path / "mark"):
        disturbed = reproduce(asked, watch=attempts.see)
    assert [start >= HALF for start in attempts.second()] == [True]
    again = reproduce(asked)
    assert (disturbed.errors, again.fresh) == ([], ())
    assert came_out(disturbed) == came_out(again) == undisturbed
    assert capfd.readouterr() == ("", "")  # Ray says a good deal about a node that it lost


@pytest.mark.slow
def test_a_worker_killed_once_goes_on_from_its_checkpoint_and_changes_no_number(
    slow_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a", **ONE)
    once_half_way(slow_paper, tmp_path / "mark", "os.kill(os.getpid(), 9)")
    asked = request(slow_paper, tmp_path / "b", address=two_nodes.address, **ONE)
    attempts = Attempts()
    disturbed = reproduce(asked, watch=attempts.see)
    assert [start >= HALF for start in attempts.second()] == [True]
    again = reproduce(asked)
    assert (disturbed.errors, again.fresh) == ([], ())
    assert came_out(disturbed) == came_out(again) == undisturbed


@pytest.mark.slow
def test_the_command_killed_half_way_goes_on_from_its_checkpoints_and_changes_no_number(
    slow_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a", **ONE)
    once_half_way(slow_paper, tmp_path / "mark", "time.sleep(600)")
    asked = request(slow_paper, tmp_path / "b", address=two_nodes.address, **ONE)
    there = "--engine", "ray", "--address", str(two_nodes.address)
    only = "--variant", "two-inputs", "--claim", "test-error"
    driver = begin(slow_paper, asked.root, *there, *only)
    worker = psutil.Process(process_at(tmp_path / "mark"))
    driver.kill()
    driver.communicate()
    worker.wait(timeout=30)
    attempts = Attempts()
    gone_on = reproduce(asked, watch=attempts.see)
    assert max(first for first, *_ in attempts.begun.values()) >= HALF
    again = reproduce(asked)
    assert (gone_on.errors, again.fresh) == ([], ())
    assert came_out(gone_on) == came_out(again) == undisturbed
    assert list(asked.root.glob("tiny*/*/*.ckpt")) == []


@pytest.mark.slow
def test_a_run_whose_worker_always_dies_is_an_error_and_the_others_are_kept(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    first_thing(tiny_paper, "if seeds.seed == 1:", "    import os", "    os.kill(os.getpid(), 9)")
    result = reproduce(request(tiny_paper, tmp_path / "runs", address=two_nodes.address))
    assert {(r.variant, r.seed) for r in result.errors} == {("two-inputs", 1), ("one-input", 1)}
    assert all("2 of its workers" in (r.error or "") for r in result.errors)
    kept = {(r.variant, r.seed) for r in result.fresh if r.part == "train" and r.status == "ok"}
    assert kept == {("two-inputs", 0), ("one-input", 0)}


@pytest.mark.slow
def test_a_run_that_exits_is_an_error_in_the_words_of_the_other_engine(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    first_thing(tiny_paper, "if seeds.seed == 1:", "    raise SystemExit(3)")
    there = reproduce(request(tiny_paper, tmp_path / "a", address=two_nodes.address, **ONE))
    here = reproduce(request(tiny_paper, tmp_path / "b", engine="processes", workers=1, **ONE))
    said = [(r.seed, r.error) for r in there.errors]
    assert said == [(1, "its process was ended with status 3, 2 times")]
    assert said == [(r.seed, r.error) for r in here.errors]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What `_do` says; filled outside of any cluster."""
    monkeypatch.setattr(ray_task.ray, "get_runtime_context", MagicMock())
    return []


def do(job: Job, runs: Path, sent: list[tuple[str, Any]]) -> tuple[str, Any]:
    freight = ray_task.Freight(bell=MagicMock(), mark=runs, paper=str(job.entry.folder), model=None)
    ray_task._do(job, freight, lambda *message: sent.append(message))
    return sent[-1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_a_run_raises_ends_with_a_word_to_the_driver(
    tiny_paper: Path,
    tmp_path: Path,
    sent: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    monkeypatch.setattr(ray_task, "_done", MagicMock(side_effect=error("enough")))
    kind, why = do(job(tiny_paper, tmp_path), tmp_path, sent)
    assert kind == "broken"
    assert f"{error.__name__}: enough" in why


def test_a_machine_that_sees_no_records_keeps_no_file_of_a_run_that_was_stopped(
    tiny_paper: Path,
    tmp_path: Path,
    sent: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(there: Job, _emit: object) -> None:
        there.root.mkdir(parents=True)
        (there.root / "0.ckpt").touch()
        raise Stopped

    temporary = tmp_path / "temporary"
    monkeypatch.setattr(ray_task.tempfile, "gettempdir", lambda: str(temporary))
    monkeypatch.setattr(ray_task.jobs, "attempt", stopped)
    assert do(job(tiny_paper, tmp_path), tmp_path, sent)[0] == "stopped"
    assert list(temporary.iterdir()) == []


def test_a_node_on_which_torch_cannot_be_loaded_says_why(
    tiny_paper: Path,
    tmp_path: Path,
    sent: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = job(tiny_paper, tmp_path)
    monkeypatch.delitem(sys.modules, "reimpl.context", raising=False)
    monkeypatch.setattr("builtins.__import__", unless("reimpl.context", OSError("no libcudart")))
    kind, error = do(first, tmp_path, sent)
    assert kind == "refused"
    assert str(error) == "a worker cannot begin: OSError: no libcudart"


def unless(name: str, error: Exception) -> Any:
    """An `import` that breaks for one module."""
    usual = __import__

    def imported(wanted: str, *more: Any, **other: Any) -> Any:
        if wanted == name:
            raise error
        return usual(wanted, *more, **other)

    return imported


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_checkpoints_and_the_same_command_goes_on(
    slow_paper: Path, dawdle: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    undisturbed = reproduce(request(slow_paper, tmp_path / "a", engine="processes", workers=1))
    runs, trains = tmp_path / "b", dawdle.with_name("trains")
    again = request(slow_paper, runs, address=two_nodes.address)
    dawdle.touch()
    driver = begin(slow_paper, runs, "--engine", "ray", "--address", str(two_nodes.address))
    wait_until(lambda: list(runs.glob("tiny*/two-inputs/0-*.json")))
    trains.unlink(missing_ok=True)  # a probe may have trained before
    wait_until(trains.exists)
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    dawdle.unlink()
    assert driver.returncode == 130
    assert said.strip().splitlines()[-1].startswith("reimpl: interrupted")
    kept = sum(len(planned.cached) for planned in plan(again, estimate=False).planned)
    assert kept >= 1
    assert list(runs.glob("tiny*/*/*.ckpt")) != []
    went_on = reproduce(again)
    assert len(went_on.fresh) + kept == 5
    assert measured(went_on) == measured(undisturbed)
    assert list(runs.glob("tiny*/*/*.ckpt")) == []


def seconds_to_break_off(jobs: list[Job], address: str | None, *, after: str) -> float:
    """How long the engine takes to end once every run has told such an event."""
    events, told = engine.run(jobs, Room(threads=2), address=address), set[str]()
    while len(told) < len(jobs):
        event = next(events)
        told |= {event.job.name} if event.kind == after else set()
    began = time.monotonic()
    events.close()
    return time.monotonic() - began


@pytest.mark.slow
def test_a_run_that_evaluates_every_epoch_writes_its_checkpoint_when_work_breaks_off(
    slow_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    claims, runs = slow_paper / "claims.toml", tmp_path / "runs"
    claims.write_text(claims.read_text().replace("evaluate = 100", "evaluate = 1"))
    first_thing(slow_paper, "import time", "time.sleep(0.01)", of="def loss(model, batch):")
    planned = plan(request(slow_paper, runs), estimate=False)
    training = [job for job in planned.jobs if job.part == "train" and job.seeds == (1,)]
    assert seconds_to_break_off(training, two_nodes.address, after="point") < engine.GRACE + 5
    assert len(list(runs.glob("tiny*/*/*.ckpt"))) == 2


@pytest.mark.slow
def test_a_run_that_does_not_hear_is_given_up_when_its_time_is_over(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    nothing(tiny_paper, "__import__('time').sleep(100)")
    one = job(tiny_paper, tmp_path / "runs")
    took = seconds_to_break_off([one], two_nodes.address, after="started")
    assert engine.GRACE <= took < engine.GRACE + 5


@pytest.mark.slow
def test_a_run_that_ends_soon_after_the_work_broke_off_is_kept(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    nothing(tiny_paper, "__import__('time').sleep(2)")
    one, runs = job(tiny_paper, tmp_path / "runs"), tmp_path / "runs"
    seconds_to_break_off([one], two_nodes.address, after="started")
    assert len(list(runs.glob("tiny*/two-inputs/*.json"))) == 1


@pytest.mark.slow
def test_a_run_that_another_is_making_is_said_to_be_and_made_when_that_one_is_gone(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    said, taken, result = with_a_run_taken(
        request(tiny_paper, tmp_path / "a", address=two_nodes.address)
    )
    assert said == {taken}
    undisturbed = reproduce(request(tiny_paper, tmp_path / "b", engine="processes", workers=1))
    assert measured(result) == measured(undisturbed)


@pytest.mark.parametrize(("files", "runs"), [(1024, 384), (100, 1), (-1, 3200)])
def test_no_more_runs_are_under_way_than_files_may_be_open(
    tiny_paper: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
    runs: int,
) -> None:
    monkeypatch.setattr(cluster, "cpus", lambda: 1600)
    monkeypatch.setattr(engine.resource, "getrlimit", lambda _which: (files, files))
    driver = engine._Driver([job(tiny_paper, tmp_path)], MagicMock(), most=None)
    assert driver.window == runs


# What travels


@contextmanager
def nodes_apart(folder: Path, count: int) -> Iterator[str]:
    """The address of a cluster whose workers' machines see nothing of the folder.

    Nor of each other's temporary files, which they keep there.
    """
    nodes = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    join = f"{sys.executable} -m ray.scripts.scripts start --address={nodes.address} --num-cpus=1"
    hide = f"mount -t tmpfs none {folder} && TMPDIR={folder} exec {join} --memory={MEMORY} --block"
    line = ["unshare", "--mount", "sh", "-c", hide]
    joined = [
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(count)
    ]
    try:
        nodes.connect()
        wait_until(
            lambda: (
                ray.cluster_resources().get("CPU") == count
                or any(node.poll() is not None for node in joined)
            )
        )
        ray.shutdown()
        if any(node.poll() is not None for node in joined):
            pytest.skip("needs the right to make a mount namespace")
        yield str(nodes.address)
    finally:
        for node in joined:
            node.terminate()
            node.communicate()
        nodes.shutdown()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster whose one worker machine sees nothing of the test's folder."""
    with nodes_apart(tmp_path, 1) as address:
        yield address


@pytest.fixture
def two_apart(tmp_path: Path) -> Iterator[str]:
    """The same of two machines, of which neither sees what the other keeps."""
    with nodes_apart(tmp_path, 2) as address:
        yield address


@pytest.mark.slow
def test_a_run_of_a_killed_node_that_shares_no_folder_starts_again_and_changes_no_number(
    slow_paper: Path, tmp_path: Path, two_apart: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a", **ONE)
    mark = tmp_path_factory.mktemp("seen_by_all") / "mark"
    once_half_way(slow_paper, mark, "time.sleep(600)")
    asked, attempts = request(slow_paper, tmp_path / "b", address=two_apart, **ONE), Attempts()
    with node_killed(mark):
        disturbed = reproduce(asked, watch=attempts.see)
    assert attempts.second() == [0]
    again = reproduce(asked)
    assert (disturbed.errors, again.fresh) == ([], ())
    assert came_out(disturbed) == came_out(again) == undisturbed


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
RAW = f'''
[data.raw]
hub = "org/raw"
revision = "main"
files = {{ "raw.bin" = "{ABC}" }}

[setting.inputs]'''


@pytest.mark.slow
def test_a_machine_that_sees_neither_code_nor_records_nor_data_is_sent_them(
    tiny_paper: Path, tmp_path: Path, apart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, mirror = tiny_paper / "claims.toml", tmp_path / "mirror" / "org" / "raw"
    claims.write_text(claims.read_text().replace("\n[setting.inputs]", RAW))
    first_thing(tiny_paper, "assert sources['raw']['files']['raw.bin'].read_bytes() == b'abc'")
    mirror.mkdir(parents=True)
    (mirror / "raw.bin").write_bytes(b"abc")
    monkeypatch.setenv("REIMPL_DATA_MIRROR", str(tmp_path / "mirror"))
    here = reproduce(request(tiny_paper, tmp_path / "a", engine="processes", workers=1))
    there = reproduce(request(tiny_paper, tmp_path / "b", address=apart))
    assert [record.error for record in (*here.errors, *there.errors)] == []
    assert measured(there) == measured(here)
    assert [r.environment for r in there.fresh] == [r.environment for r in here.fresh]


def job(paper: Path, runs: Path, **more: Any) -> Job:
    planned = plan(request(paper, runs, **more), estimate=False)
    return next(job for job in planned.jobs if job.part == "train")


def test_the_parcel_holds_the_code_and_nothing_that_was_measured(
    tiny_paper: Path, tmp_path: Path
) -> None:
    (tiny_paper / "measured.jsonl").touch()
    (tmp_path / "mine.py").write_text("from torch.nn import Identity as Net")
    own = job(tiny_paper, tmp_path / "runs", model=f"{tmp_path / 'mine.py'}:Net")
    with cluster.packed(own) as parcel:
        found = {p.relative_to(parcel.root).as_posix() for p in parcel.root.rglob("*.*")}
        assert parcel.model == "model/mine.py:Net"
        assert {f"{parcel.paper}/__init__.py", f"{parcel.paper}/claims.toml"} <= found
        assert {"model/mine.py", "reimpl/jobs.py", "baselines/__init__.py"} <= found
        assert [name for name in found if name.endswith((".jsonl", ".pyc"))] == []


def test_an_installed_paper_travels_as_the_package_it_is_imported_from(tmp_path: Path) -> None:
    asked = Request(paper="rumelhart1986", runs=tmp_path, wandb="disabled", engine="ray")
    first = plan(asked, estimate=False).jobs[0]
    with cluster.packed(first) as parcel:
        assert parcel.paper == "papers/rumelhart1986_backprop"
        assert (parcel.root / parcel.paper / "claims.toml").is_file()


def test_a_run_takes_what_its_variant_declares(tiny_paper: Path, tmp_path: Path) -> None:
    claims = tiny_paper / "claims.toml"
    says = 'says = "logistic regression on both coordinates"'
    claims.write_text(claims.read_text().replace(says, f"{says}\ncpus = 2\ngpus = 0.5"))
    declared = job(tiny_paper, tmp_path / "runs")
    assert engine.needs(declared) == {"CPU": 2, "memory": 300 * 2**20}
    on_gpu = engine.needs(replace(declared, device="cuda"))
    assert on_gpu == {"CPU": 2, "memory": 300 * 2**20, "GPU": 0.5}


# What docs/clusters.md says

PAGE = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text()
REIMPL = """#!/bin/bash
trap 'echo heard >> heard; exit 130' TERM
echo "$@" > begun
for _ in {1..600}; do sleep 0.1; done
"""
STANDINS = {
    "scontrol": "echo node-0; echo node-1",
    "srun": 'SLURM_NODEID=0 exec "$@"',
    "ray": '[ $1 = status ] || { echo "$@" > cluster; exec sleep 60; }',
}


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The page's script at work, with stand-ins for all but bash."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("PATH=$PWD:$PATH\n")
    programs = {name: f"#!/bin/bash\n{does}\n" for name, does in STANDINS.items()}
    for name, code in {**programs, "reimpl": REIMPL}.items():
        (tmp_path / name).write_text(code)
        (tmp_path / name).chmod(0o755)
    script = PAGE.split("## SLURM")[1].split("```bash\n")[1].split("```")[0]
    (tmp_path / "reimpl.sbatch").write_text(script)
    given = {"SLURM_CPUS_PER_TASK": "16", "SLURM_JOB_NODELIST": "node-[0-1]"}
    batch = subprocess.Popen(
        ["bash", "reimpl.sbatch"],
        cwd=tmp_path,
        env={**os.environ, **given},
        start_new_session=True,
    )
    yield batch
    with suppress(ProcessLookupError):
        os.killpg(batch.pid, signal.SIGKILL)
    batch.wait()


def test_the_script_for_slurm_hands_the_signal_on_and_waits_for_the_command(
    slurm: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    wait_until(lambda: (tmp_path / "begun").exists() and (tmp_path / "cluster").exists())
    assert "--address node-0:6379" in (tmp_path / "begun").read_text()
    assert "start --head --port=6379 --num-cpus=16" in (tmp_path / "cluster").read_text()
    slurm.terminate()  # the script alone, as `B:TERM@60` does
    assert slurm.wait(timeout=20) == 130
    assert (tmp_path / "heard").read_text() == "heard\n"


def test_the_manifests_can_be_read_and_name_one_volume() -> None:
    blocks = [part.split("```")[0] for part in PAGE.split("```yaml\n")[1:]]
    volume, ray_cluster = map(yaml.safe_load, blocks)
    spec = ray_cluster["spec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    claims = [pod["template"]["spec"]["volumes"][0]["persistentVolumeClaim"] for pod in pods]
    assert {claim["claimName"] for claim in claims} == {volume["metadata"]["name"]}


# What a plan says


def test_a_plan_for_a_cluster_here_tries_the_runs_for_a_moment_so_that_a_budget_holds_them(
    tiny_paper: Path, tmp_path: Path
) -> None:
    asked = request(tiny_paper, tmp_path / "runs", budget_s=1800.0)
    probes = Probes(of="new", run=MagicMock(side_effect=AssertionError))  # as the command does
    planned = plan(asked, probes=probes)
    assert dict(planned.left_out) == {}
    assert {p.basis for p in planned.planned if p.part == "train"} == {"a short probe here"}


def nodes_of(*cpus: int) -> Any:
    return lambda _address: [{"CPU": float(count), "memory": 2.0**30} for count in cpus]


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"), [((1,), None, 1), ((0, 16, 16), None, 32), ((16, 16), 5, 5)]
)
def test_a_plan_counts_the_workers_of_the_cluster_that_it_is_for(
    tiny_paper: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpus: tuple[int, ...],
    workers: int | None,
    threads: int,
) -> None:
    monkeypatch.setattr(cluster, "nodes_at", nodes_of(*cpus))
    asked = request(tiny_paper, tmp_path / "runs", address="head:6379", workers=workers)
    room = plan(asked, estimate=False).room
    assert room == Room(threads=threads, memory_mb=len(cpus) * 1024)


@pytest.mark.slow
def test_a_plan_asks_the_cluster_and_is_not_stopped_by_one_that_does_not_answer(
    tiny_paper: Path, tmp_path: Path, two_nodes: Cluster, closed: str
) -> None:
    there = request(tiny_paper, tmp_path / "runs", address=two_nodes.address, workers=7)
    assert plan(there, estimate=False).room.threads == 2
    nowhere = replace(there, address=closed)
    assert plan(nowhere, estimate=False).room.threads == min(7, cores())  # this machine's


# Mistakes, each of them one line


def test_a_cluster_without_room_for_a_run_says_what_is_wanted(
    tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("memory_mb = 300", "memory_mb = 90_000_000"))
    with pytest.raises(RequestError, match=r"no node .* 1 CPUs and 90,000,000 MB"):
        reproduce(request(tiny_paper, tmp_path / "runs", workers=1))
    assert not ray.is_initialized()


@pytest.fixture
def silent() -> Iterator[str]:
    """Where something listens that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed(silent: str) -> str:
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@pytest.fixture
def polite() -> Iterator[str]:
    """Where something speaks HTTP/2, as Ray does, and never answers a question."""
    with ExitStack() as talks, socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    talks.enter_context(server.accept()[0]).sendall(SETTINGS)

        waiting = Thread(target=serve)
        waiting.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        waiting.join()


@pytest.mark.parametrize("there", ["silent", "closed", "polite"])
def test_an_address_that_does_not_answer_is_one_line_within_20_seconds(
    tiny_paper: Path, tmp_path: Path, there: str, request: Any
) -> None:
    address = request.getfixturevalue(there)
    began = time.monotonic()
    driver = begin(tiny_paper, tmp_path / "runs", "--engine", "ray", "--address", address)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 2
    assert time.monotonic() - began < 20
    plan_line, mistake = said.strip().splitlines()
    assert "runs to make" in plan_line
    assert f"--address {address}: no cluster answers" in mistake


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", "HOST:PORT"),
        ("foo..bar:6379", "no cluster answers"),
        ("127.0.0.1:99999", "no cluster answers"),
        ("ray://head:10001", "ray job submit"),
        ("auto", "in no Ray cluster"),
    ],
)
def test_an_address_that_cannot_be_one_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with (
        pytest.raises(RequestError, match=f"--address {address}: .*{said}"),
        cluster.connected(address, tmp_path, workers=None),
    ):
        pass


@pytest.mark.slow
def test_the_port_of_another_process_of_rays_is_told_from_that_of_the_head(
    tmp_path: Path, two_nodes: Cluster
) -> None:
    node: Any = two_nodes.head_node
    address = f"{node.node_ip_address}:{node.node_manager_port}"
    with (
        pytest.raises(RequestError, match=r"leads no cluster; write .* `ray start --head` prints"),
        cluster.connected(address, tmp_path, workers=None),
    ):
        pass
    there = cluster.nodes_at(str(two_nodes.address))
    assert sorted(node.get("CPU", 0) for node in there) == [0, 1, 1]


MISSING = "AuthenticationError: RPC error: InvalidAuthToken: Authentication token is missing"


@pytest.mark.parametrize(
    ("mode", "said", "logged", "hint"),
    [
        ("disabled", MISSING, "", "RAY_AUTH_MODE=token set here"),
        ("token", MISSING, "", r"must hold the one that its head has"),
        ("token", "", "Check failed: couldn't find an authentication token", r"~/\.ray/auth_token"),
    ],
)
def test_a_token_that_is_missing_or_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, mode: str, said: str, logged: str, hint: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    line = str(cluster._mistake("head:6379", said, logged))
    assert "\n" not in line
    assert re.search(f"--address head:6379: the token is missing or wrong; .*{hint}", line)


@pytest.mark.parametrize(
    "error", [shutil.Error([("a", "b", "No space left")]), OSError("No space left")]
)
def test_a_full_folder_of_temporary_files_says_what_to_set(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(cluster.shutil, "copytree", MagicMock(side_effect=error))
    with (
        pytest.raises(RequestError, match=r"packed for Ray \(No space left\); set TMPDIR"),
        cluster.packed(job(tiny_paper, tmp_path)),
    ):
        pass


def test_without_ray_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reimpl.engines.find_spec", lambda _name: None)
    with pytest.raises(RequestError, match=r"pip install 'reimpl\[ray\]'"):
        check_ray("cpu")


def test_ray_itself_chooses_the_gpu() -> None:
    with pytest.raises(RequestError, match="--device cuda:1: Ray chooses"):
        check_ray("cuda:1")


def test_a_worker_with_another_torch_makes_no_record() -> None:
    with pytest.raises(RequestError, match=r"torch .*, and this machine 1\.0; install the same"):
        ray_task._check_versions("1.0", "1.0")
