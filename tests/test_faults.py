import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Literal

import psutil
import pytest

from reimpl import context as contexts
from reimpl import planning
from reimpl.context import Emit, Stopped
from reimpl.engines import room
from reimpl.jobs import Job, claim, execute, undone
from reimpl.planning import Request, plan
from reimpl.records import Record, Store
from reimpl.reproduction import reproduce
from tests.disturbing import (
    HALF,
    Attempts,
    begin,
    came_out,
    command,
    first_thing,
    measured,
    once_half_way,
    process_at,
    wait_until,
    with_a_run_taken,
)


def request(paper: Path, runs: Path, **more: Any) -> Request:
    settings = {"seeds": 2, "workers": 2, "wandb": "disabled", **more}
    return Request(paper="tiny", papers=(paper,), runs=runs, **settings)


EXPECTED: dict[str, object] = {}


def expected(paper: Path, runs: Path) -> object:
    """What comes out of the slow paper when nothing disturbs it; worked out once."""
    if not EXPECTED:
        EXPECTED["came out"] = came_out(reproduce(request(paper, runs)))
    return EXPECTED["came out"]


def workers(parent: int) -> list[psutil.Process]:
    found = psutil.Process(parent).children(recursive=True)
    return [process for process in found if is_worker(process)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "reimpl.engines.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def checkpoints(runs: Path) -> list[Path]:
    return list(runs.glob("*/*/*.ckpt"))


def locks_held(runs: Path) -> int:
    return len(list((runs / ".locks").glob("*.lock")))


def test_a_worker_killed_once_goes_on_from_its_checkpoint_and_changes_no_number(
    slow_paper: Path, tmp_path: Path
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    once_half_way(slow_paper, tmp_path / "mark", "os.kill(os.getpid(), 9)")
    asked, attempts = request(slow_paper, tmp_path / "b"), Attempts()
    disturbed = reproduce(asked, watch=attempts.see)
    assert [start >= HALF for start in attempts.second()] == [True]
    again = reproduce(asked)
    assert (disturbed.errors, again.fresh) == ([], ())
    assert came_out(disturbed) == came_out(again) == undisturbed
    assert checkpoints(asked.root) == []


def test_a_run_whose_worker_always_dies_is_an_error_and_the_others_are_kept(
    slow_paper: Path, tmp_path: Path
) -> None:
    first_thing(slow_paper, "if seeds.seed == 1:", "    import os", "    os.kill(os.getpid(), 9)")
    result = reproduce(request(slow_paper, tmp_path / "runs"))
    assert {(r.variant, r.seed) for r in result.errors} == {("two-inputs", 1), ("one-input", 1)}
    assert all("killed by signal 9" in (r.error or "") for r in result.errors)
    assert {
        (r.variant, r.seed) for r in result.fresh if r.part == "train" and r.status == "ok"
    } == {
        ("two-inputs", 0),
        ("one-input", 0),
    }


def test_workers_end_when_the_parent_is_killed_and_the_same_command_goes_on(
    slow_paper: Path, tmp_path: Path
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    once_half_way(slow_paper, tmp_path / "mark", "time.sleep(600)")
    asked, attempts = request(slow_paper, tmp_path / "b"), Attempts()
    parent = begin(slow_paper, asked.root)
    waiting = process_at(tmp_path / "mark")
    team = workers(parent.pid)
    parent.kill()
    parent.communicate()
    assert waiting in [process.pid for process in team]
    wait_until(lambda: all(ended(process) for process in team), 20)
    gone_on = reproduce(asked, watch=attempts.see)
    assert max(first for first, *_ in attempts.begun.values()) >= HALF
    again = reproduce(asked)
    assert (gone_on.errors, again.fresh) == ([], ())
    assert came_out(gone_on) == came_out(again) == undisturbed
    assert checkpoints(asked.root) == []


def test_ctrl_c_leaves_checkpoints_exits_130_and_the_same_command_goes_on(
    slow_paper: Path, dawdle: Path, tmp_path: Path
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    runs, trains = tmp_path / "b", dawdle.with_name("trains")
    dawdle.touch()
    parent = begin(slow_paper, runs)
    wait_until(lambda: locks_held(runs) >= 2)
    trains.unlink(missing_ok=True)  # a probe may have trained before
    wait_until(trains.exists)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=30)
    dawdle.unlink()
    assert parent.returncode == 130
    assert said.strip().splitlines()[-1].startswith("reimpl: interrupted")
    assert checkpoints(runs) != []
    assert came_out(reproduce(request(slow_paper, runs))) == undisturbed
    assert checkpoints(runs) == []


def test_ctrl_c_in_a_training_of_long_steps_leaves_a_checkpoint(
    tiny_paper: Path, tmp_path: Path
) -> None:
    trains, runs = tmp_path / "trains", tmp_path / "runs"
    lines = "import pathlib, time", f"pathlib.Path({str(trains)!r}).touch()", "time.sleep(0.4)"
    first_thing(tiny_paper, *lines, of="def loss(model, batch):")
    parent = begin(tiny_paper, runs, "--workers", "1")
    wait_until(lambda: locks_held(runs) >= 1)
    trains.unlink(missing_ok=True)  # a probe may have trained before
    wait_until(trains.exists)
    os.killpg(parent.pid, signal.SIGINT)
    parent.communicate(timeout=30)
    assert len(checkpoints(runs)) == 1


def in_step_150(paper: Path, *lines: str) -> None:
    """Make the loss do this once, in the first training of a process."""
    count = "global CALLS", "CALLS = globals().get('CALLS', 0) + 1", "if CALLS == 151:"
    first_thing(paper, *count, *(f"    {line}" for line in lines), of="def loss(model, batch):")


def only_job(paper: Path, runs: Path, **more: Any) -> Job:
    asked = request(paper, runs, **{"variants": ("two-inputs",), "seeds": 1, **more})
    (job,) = [job for job in plan(asked, estimate=False).jobs if job.part == "train"]
    return job


def done(job: Job, emit: Emit = lambda _kind, _contents: None) -> Record:
    made = execute(job, emit)
    assert isinstance(made, list)
    return made[0]


def test_a_failed_run_goes_on_from_its_checkpoint(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "CHECKPOINT_EVERY", 0.0)
    in_step_150(tiny_paper, "raise OSError(28, 'No space left on device')")
    job = only_job(tiny_paper, tmp_path / "a")
    assert "No space left on device" in (done(job).error or "")
    assert len(checkpoints(job.root)) == 1
    reports: list[float] = []
    again = done(job, lambda kind, said: reports.append(said["done"]) if "done" in said else None)
    assert min(reports) > 100
    undisturbed = done(replace(job, root=tmp_path / "b"))
    assert (again.status, again.measurements) == ("ok", undisturbed.measurements)
    assert again.curves == undisturbed.curves
    assert checkpoints(job.root) == []


def test_a_run_whose_checkpoint_is_of_another_format_starts_again(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "CHECKPOINT_EVERY", 0.0)
    in_step_150(tiny_paper, "raise OSError(28, 'No space left on device')")
    job = only_job(tiny_paper, tmp_path / "a")
    assert done(job).status == "error"
    monkeypatch.setattr(contexts, "FORMAT", contexts.FORMAT + 1)
    before: set[float] = set()
    again = done(job, lambda _kind, said: before.add(said["before"]) if "before" in said else None)
    undisturbed = done(replace(job, root=tmp_path / "b"))
    assert before == {0.0}
    assert (again.status, again.measurements) == ("ok", undisturbed.measurements)
    assert again.curves == undisturbed.curves
    assert checkpoints(job.root) == []


@pytest.mark.slow
def test_a_shared_run_of_long_steps_goes_on_to_the_same_bits_from_within_a_block(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_thing(
        tiny_paper,
        "X, y = batch",
        "batch = nn.functional.dropout(X, 0.2, model.training), y",
        of="def loss(model, batch):",
    )
    undisturbed = done(only_job(tiny_paper, tmp_path / "a", devices=2))
    stop = Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    job = only_job(tiny_paper, tmp_path / "b", devices=2)
    with pytest.raises(Stopped):
        done(job, lambda _kind, said: stop.set() if said.get("done") == 137 else None)
    stop.clear()
    reports: list[float] = []
    again = done(job, lambda kind, said: reports.append(said["done"]) if "done" in said else None)
    assert (again.error, reports[:1]) == (None, [138])
    assert (again.measurements, again.curves) == (undisturbed.measurements, undisturbed.curves)


def test_a_run_that_diverged_leaves_no_checkpoint(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHECKPOINT_EVERY", "LOOK_EVERY", "PROGRESS_EVERY"):
        monkeypatch.setattr(contexts, name, 0.0)
    in_step_150(tiny_paper, "return model(batch[0]).sum() * float('nan')")
    job = only_job(tiny_paper, tmp_path / "runs")
    kept: list[Path] = []
    record = done(job, lambda _kind, _said: kept.extend(checkpoints(job.root)))
    assert (record.error or "").startswith("DivergenceError: the loss became nan at step 150")
    assert kept != []
    assert checkpoints(job.root) == []


def test_work_breaks_off_when_the_budget_is_spent_and_goes_on_from_there(
    slow_paper: Path, tmp_path: Path
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    said: list[str] = []
    asked = request(slow_paper, tmp_path / "b", workers=1)
    made = plan(asked, estimate=False)
    cut = reproduce(replace(asked, budget_s=4.0), planned=[made], say=said.append)
    left = len(made.jobs) - len(cut.fresh)
    assert left > 0
    assert said == [f"the budget is spent; the same command goes on, {left} left to run"]
    assert came_out(reproduce(asked)) == undisturbed


def test_two_at_once_do_no_run_twice(
    slow_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.touch()
    first_thing(slow_paper, f"open({str(log)!r}, 'a').write(f'{{variant.id}} {{seeds.seed}}\\n')")
    runs = tmp_path / "runs"
    script = (
        "from pathlib import Path; from reimpl import reproduce; "
        f"reproduce('tiny', papers=(Path({str(slow_paper)!r}),), runs=Path({str(runs)!r}), "
        "seeds=2, workers=1, wandb='disabled')"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert sorted(log.read_text().splitlines()) == [
        "one-input 0",
        "one-input 1",
        "two-inputs 0",
        "two-inputs 1",
    ]


def test_what_another_is_making_is_left_to_the_end(tiny_paper: Path, tmp_path: Path) -> None:
    asked = request(tiny_paper, tmp_path / "runs")
    first, *others = [job for job in plan(asked).jobs if job.part == "train"]
    with ExitStack() as stack:
        assert stack.enter_context(claim(first))
        process = begin(tiny_paper, asked.root, "--workers", "1")
        wait_until(lambda: all(undone(job)[1] is None for job in others))
        assert undone(first)[1] is not None
        assert process.poll() is None
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert undone(first)[1] is None


def test_one_seed_of_a_batch_is_not_made_while_another_makes_the_batch(
    tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("seeds = 5", "seeds = 5\nvectorised = true"))
    one, three = (only_job(tiny_paper, tmp_path / "runs", seeds=seeds) for seeds in (1, 3))
    assert (one.seeds, three.seeds) == ((0,), (0, 1, 2))
    for first, second in ((one, three), (three, one)):
        with claim(first) as granted, claim(second) as granted_too:
            assert (granted, granted_too) == (True, False)


@pytest.mark.parametrize(("cut", "then"), [(1, 3), (3, 1), (3, 2)])
def test_what_a_batch_of_other_seeds_left_when_it_was_cut_off_is_left_aside(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, then: int
) -> None:
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("seeds = 5", "seeds = 5\nvectorised = true"))
    stop = Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    first = only_job(tiny_paper, tmp_path / "a", seeds=cut)
    with pytest.raises(Stopped):
        done(first, lambda _kind, said: stop.set() if said.get("done") else None)
    stop.clear()
    assert len(checkpoints(first.root)) == 1
    again, undisturbed = (
        execute(only_job(tiny_paper, tmp_path / name, seeds=then), lambda _kind, _said: None)
        for name in ("a", "b")
    )
    assert isinstance(again, list)
    assert isinstance(undisturbed, list)
    assert [r.measurements for r in again] == [r.measurements for r in undisturbed]
    assert [(r.status, r.curves) for r in again] == [("ok", r.curves) for r in undisturbed]
    assert checkpoints(first.root) == []


def test_seeds_that_train_one_by_one_are_made_by_several_at_once(
    tiny_paper: Path, tmp_path: Path
) -> None:
    asked = request(tiny_paper, tmp_path / "runs", variants=("two-inputs",))
    one, other = (job for job in plan(asked, estimate=False).jobs if job.part == "train")
    with claim(one) as granted, claim(other) as granted_too:
        assert (granted, granted_too) == (True, True)


@pytest.mark.parametrize("engine", ["processes", "inprocess"])
def test_a_run_that_another_is_making_is_said_to_be_and_made_when_that_one_is_gone(
    tiny_paper: Path, tmp_path: Path, engine: Literal["processes", "inprocess"]
) -> None:
    asked = request(tiny_paper, tmp_path / "a", engine=engine, workers=1)
    said, taken, result = with_a_run_taken(asked)
    assert said == {taken}
    undisturbed = reproduce(request(tiny_paper, tmp_path / "b", workers=1))
    assert measured(result) == measured(undisturbed)


def test_a_loss_that_becomes_nan_is_an_error_with_its_step(
    tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    claims.write_text(
        claims.read_text().replace(
            'says = "logistic regression on the first coordinate"', 'says = "x"\nlr = 1e38'
        )
    )
    result = reproduce(request(tiny_paper, tmp_path / "runs"))
    assert [(r.variant, r.seed) for r in result.errors] == [("one-input", 0), ("one-input", 1)]
    assert all(
        "the loss became" in (r.error or "") and "at step" in (r.error or "") for r in result.errors
    )
    lanes = {verdict.id: verdict.lane for verdict in result.verdicts}
    assert lanes["two-beat-one"] == "error"
    assert lanes["test-error"] == "consistent"


def test_a_failed_run_is_tried_again_next_time(tiny_paper: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    first_thing(
        tiny_paper,
        f"if __import__('pathlib').Path({str(flag)!r}).exists():",
        "    raise ValueError('not today')",
    )
    first = reproduce(request(tiny_paper, tmp_path / "runs"))
    flag.unlink()
    second = reproduce(request(tiny_paper, tmp_path / "runs"))
    assert (len(first.errors), len(second.errors)) == (4, 0)
    assert all("ValueError: not today" in (r.error or "") for r in first.errors)
    assert second.verdicts[0].lane == "reproduced"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("import nowhere_to_be_found\n", "tiny2026_logistic"),
        ("raise RuntimeError('broken on import')\n", "broken on import"),
    ],
    ids=["missing-import", "raises"],
)
def test_a_paper_whose_import_fails_is_one_line_and_status_2(
    tiny_paper: Path, tmp_path: Path, break_it: str, said: str
) -> None:
    code = tiny_paper / "__init__.py"
    code.write_text(break_it + code.read_text())
    done = subprocess.run(
        command(tiny_paper, tmp_path / "runs"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line_and_status_2(
    tiny_paper: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        command(tiny_paper, tmp_path / "file" / "runs"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr or "Choose a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_cut_in_half_is_set_aside_named_and_run_again(
    tiny_paper: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    before = measured(reproduce(request(tiny_paper, runs)))
    victim = next(runs.glob("tiny*/two-inputs/0-*.json"))
    victim.write_bytes(victim.read_bytes()[:200])
    after = reproduce(request(tiny_paper, runs))
    assert measured(after) == before
    assert [(r.variant, r.seed) for r in after.fresh] == [("two-inputs", 0)]
    assert [path.name for path in after.evidence.unreadable] == [f"{victim.name}.unreadable"]


def test_wandb_online_without_a_login_stops_before_any_run(
    tiny_paper: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    line = [
        word if word != "disabled" else "online" for word in command(tiny_paper, tmp_path / "runs")
    ]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "wandb login" in done.stderr
    assert list((tmp_path / "runs").glob("tiny*/*/*.json")) == []


def without_data(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "REIMPL_DATA_MIRROR"}
    line = [sys.executable, "-m", "reimpl", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_no_data_and_no_network_is_one_line_with_three_ways_and_status_2(tmp_path: Path) -> None:
    done = without_data("reproduce", "lecun1998", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert [way in last for way in ("REIMPL_DATA_MIRROR", "with a network", "copy")] == [True] * 3
    assert "Traceback" not in done.stderr


def test_plan_answers_without_data_and_says_what_is_missing(tmp_path: Path) -> None:
    done = without_data("plan", "lecun1998", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0
    assert "lenet5" in done.stdout
    assert "REIMPL_DATA_MIRROR" in done.stderr


@pytest.mark.parametrize("engine", ["inprocess", "processes"])
def test_a_watcher_hears_that_another_makes_a_run(
    tiny_paper: Path, tmp_path: Path, engine: Any
) -> None:
    asked = replace(request(tiny_paper, tmp_path / "runs"), engine=engine)
    job = next(job for job in plan(asked).jobs if job.part == "train")
    with ExitStack() as stack, planning.engine(asked) as run:
        stack.enter_context(claim(job))
        events = run([job], room(1))
        waits = next(event for event in events if event.kind != "started")
        assert (waits.kind, waits.job) == ("taken", job)
        stack.close()
        *_, last = events
        assert (last.kind, last.job) == ("done", job)


def test_two_at_once_lose_nothing(slow_paper: Path, tmp_path: Path) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    runs = tmp_path / "b"
    both = [begin(slow_paper, runs, "--workers", "1") for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    afterwards = reproduce(request(slow_paper, runs))
    assert (came_out(afterwards), afterwards.fresh) == (undisturbed, ())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here; it takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(("engine", "free"), [("inprocess", 0), ("processes", 8)])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on_when_there_is_room(
    tiny_paper: Path, tmp_path: Path, small_disk: Path, engine: str, free: int
) -> None:
    undisturbed = reproduce(request(tiny_paper, tmp_path / "elsewhere", engine="inprocess"))
    filler, runs = small_disk / "filler", small_disk / "runs"
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    os.truncate(filler, filler.stat().st_size - free * 1024)  # with 8 kB, one record finds room
    line = command(tiny_paper, runs, "--engine", engine)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    filler.unlink()
    again = reproduce(request(tiny_paper, runs, engine="inprocess"))
    assert (again.errors, again.evidence.unreadable) == ([], ())
    assert measured(again) == measured(undisturbed)
    assert again.verdicts == undisturbed.verdicts


def test_a_checkpoint_that_fills_the_disk_is_one_line_and_leaves_the_room_that_there_was(
    tiny_paper: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "CHECKPOINT_EVERY", 0.0)
    often = "import reimpl.context", "reimpl.context.CHECKPOINT_EVERY = 0.0"
    first_thing(tiny_paper, *often)
    ballast = "self.register_buffer('ballast', torch.zeros(100_000))"  # 400 kB
    code = tiny_paper / "__init__.py"
    code.write_text(
        code.read_text().replace("super().__init__()", f"super().__init__(); {ballast}")
    )
    asked = request(tiny_paper, tmp_path / "elsewhere", engine="inprocess")
    undisturbed = reproduce(asked)
    filler, runs = small_disk / "filler", small_disk / "runs"
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    os.truncate(filler, filler.stat().st_size - 200 * 1024)
    done = subprocess.run(command(tiny_paper, runs), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert ".ckpt: No space left on device" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(runs.rglob("*.part")) == []
    assert os.statvfs(small_disk).f_bavail > 0
    filler.unlink()
    again = reproduce(replace(asked, runs=runs))
    assert (again.errors, measured(again)) == ([], measured(undisturbed))


def test_what_a_kill_left_of_a_checkpoint_is_removed_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "two-inputs"
    folder.mkdir(parents=True)
    old, new = (folder / f"0-12345678.{pid}.part" for pid in (11, 12))
    for part in (old, new):
        part.touch()
    os.utime(old, (0, 0))
    Store(tmp_path).read("tiny")
    assert list(folder.iterdir()) == [new]


def test_a_record_cut_anywhere_is_never_judged_and_the_run_is_made_again(
    tiny_paper: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    once = request(tiny_paper, runs, engine="inprocess")
    undisturbed = reproduce(once)
    victim = next(runs.glob("tiny*/two-inputs/0-*.json"))
    whole = victim.read_bytes()
    for end in range(len(whole) - 1):  # the last byte ends the line, and says nothing
        victim.write_bytes(whole[:end])
        read = Store(runs).read(undisturbed.entry.slug)
        assert ("train", "two-inputs", 0) not in {(r.part, r.variant, r.seed) for r in read.ok}
        assert len(read.ok) == len(undisturbed.evidence.records) - 1
        assert read.unreadable == [victim.with_name(f"{victim.name}.unreadable")]
    for end in range(0, len(whole) - 1, len(whole) // 5):
        victim.write_bytes(whole[:end])
        again = reproduce(once)
        assert [(r.variant, r.seed) for r in again.fresh] == [("two-inputs", 0)]
        assert measured(again) == measured(undisturbed)
        assert again.verdicts == undisturbed.verdicts


def test_a_killed_mirror_of_wandb_disturbs_no_run_and_is_one_line(
    slow_paper: Path, tmp_path: Path
) -> None:
    undisturbed = expected(slow_paper, tmp_path / "a")
    killed: list[int] = []
    said: list[str] = []

    def kill_mirror(event: Any) -> None:
        if event.kind == "progress" and not killed:
            for process in psutil.Process().children():
                if "reimpl.mirror" in process.cmdline():
                    killed.append(process.pid)
                    process.kill()

    wanted = request(slow_paper, tmp_path / "b", wandb="offline")
    disturbed = reproduce(wanted, watch=kill_mirror, say=said.append)
    assert len(killed) == 1
    assert len(said) == 1
    assert "runs are missing or incomplete there; the records are not" in said[0]
    assert disturbed.errors == []
    assert came_out(disturbed) == undisturbed
