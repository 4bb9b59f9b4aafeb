import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reimpl.collecting import no_collecting
from reimpl.errors import TrackingError
from reimpl.planning import Request
from reimpl.reproduction import reproduce
from reimpl.tracking import WAITING, Mode, Tracker, check_mode, summarise

KEY = "0123456789abcdef" * 3
FAKE = """
import time

class Settings:
    def __init__(self, **settings):
        self.mode = settings["mode"]

class Run:
    id = "run"
    summary = {}
    def define_metric(self, *args, **kwargs): pass
    def log(self, values): %(log)s
    def finish(self, exit_code): %(finish)s

def init(*, settings, **kwargs):
    %(init)s
    return Run()
"""


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    root: Path
    said: list[str]
    runs: dict[str, dict[str, Any]]

    def records(self, name: str) -> list[dict[str, Any]]:
        listed = leet("--json", Path(self.runs[name]["file"])).splitlines()
        return [json.loads(line) for line in listed]

    def table(self, name: str, table: str) -> dict[str, Any]:
        folder = Path(self.runs[name]["file"]).parent
        (path,) = folder.glob(f"files/media/table/{table}*.table.json")
        return json.loads(path.read_text())


def leet(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def offline_runs(root: Path) -> list[dict[str, Any]]:
    files = sorted(root.glob("wandb/offline-run-*/*.wandb"))
    return [json.loads(leet("--summary", "--json", path)) for path in files]


def begin(tracker: Tracker, run_id: str = "run") -> None:
    tracker.start(run_id, paper="p", variant="v", seed=0, config={})


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def fake_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*, init: str = "pass", log: str = "pass", finish: str = "pass") -> None:
        (tmp_path / "fake").mkdir()
        code = FAKE % {"init": init, "log": log, "finish": finish}
        (tmp_path / "fake" / "wandb.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))

    return install


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    root, said = tmp_path_factory.mktemp("tracking") / "runs", []
    records = [root / "records" / f"{seed}.json" for seed in range(2)]
    records[0].parent.mkdir(parents=True)
    for path in records:
        path.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_NAME", "not-this")
        with Tracker(root, "offline", say=said.append) as tracker:
            write_all(tracker, records)
        yield Mirrored(root=root, said=said, runs={r["name"]: r for r in offline_runs(root)})


def write_all(tracker: Tracker, records: list[Path]) -> None:
    for seed in range(2):
        run_id = f"lenet5/seed:{seed}"
        tracker.start(
            run_id,
            paper="lecun1998_lenet5",
            variant="lenet5",
            seed=seed,
            config={"recipe": {"lr": 0.1}, "setting.dotted": math.inf},
            tags=["cost:minutes", "x" * 100],
        )
        for epoch in range(3):
            tracker.point(run_id, epoch, {"test/error": 3.0 - epoch, "loss": math.inf})
    measurements = {"test/error": 0.95, "epochs": math.inf, "undefined": None, "holds": True}
    tracker.finish("lenet5/seed:0", measurements=measurements)
    tracker.finish("lenet5/seed:1", measurements={}, status="error", error="NaN at epoch 2")
    tracker.batch("batch", paper="p", variant="v", seeds=range(4), config={})
    tracker.finish_batch(
        "batch",
        measured={0: {"sweeps": 1.0}, 1: {"sweeps": math.inf}, 2: {"sweeps": None}},
        errors={3: "NaN"},
        curves={"loss": [(0, 1.0), (1, 0.5)]},
    )
    tracker.verdict(
        paper="lecun1998_lenet5",
        rows=[{"id": "a", "lane": "below", "interval": (1, 2)}, {"id": "b", "lane": "not run"}],
        curves={"test/error": {seed: [(0, 2.0), (1, 1.0)] for seed in range(30)}},
        records=records,
        summary={"below": 1, "not run": 1},
    )


def test_each_run_each_batch_and_the_verdict_is_one_wandb_run(mirrored: Mirrored) -> None:
    assert sorted(mirrored.runs) == ["seed-0", "seed-1", "seeds-0-3", "verdict"]


def test_a_smooth_mirroring_says_nothing(mirrored: Mirrored) -> None:
    assert mirrored.said == []


def test_the_config_is_ours_with_no_dot_in_a_key(mirrored: Mirrored) -> None:
    assert mirrored.runs["seed-0"]["config"] == {
        "paper": "lecun1998_lenet5",
        "variant": "lenet5",
        "seed": 0,
        "run": "lenet5/seed:0",
        "recipe": {"lr": 0.1},
        "setting_dotted": "inf",
    }


def test_the_summary_is_the_measurements_and_no_last_point_of_a_curve(mirrored: Mirrored) -> None:
    summary = mirrored.runs["seed-0"]["summary"]
    ours = {name: value for name, value in summary.items() if not name.startswith("_")}
    assert ours == {"test/error": 0.95, "epochs": "inf", "holds": True}


def test_a_run_that_errored_is_failed_with_its_reason(mirrored: Mirrored) -> None:
    run = mirrored.runs["seed-1"]
    assert (run["exit_code"], run["state"]) == (1, "failed")
    assert run["summary"]["error"] == "NaN at epoch 2"


def test_a_run_that_worked_has_exit_code_0(mirrored: Mirrored) -> None:
    assert mirrored.runs["seed-0"]["exit_code"] == 0


def test_tags_name_paper_variant_and_cost_and_are_short(mirrored: Mirrored) -> None:
    tags = mirrored.runs["seed-0"]["tags"]
    assert tags[:3] == ["paper:lecun1998_lenet5", "variant:lenet5", "cost:minutes"]
    assert len(tags[3]) == 64


def test_a_run_is_grouped_by_paper_and_variant(mirrored: Mirrored) -> None:
    (run,) = [record["run"] for record in mirrored.records("seed-0") if record["type"] == "run"]
    assert (run["run_group"], run["job_type"]) == ("lecun1998_lenet5/lenet5", "reproduce")


def test_the_curve_is_the_history_over_epochs_without_what_is_infinite(mirrored: Mirrored) -> None:
    records = mirrored.records("seed-0")
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    points = [(item["epoch"], item["test/error"], "loss" in item) for item in items]
    assert points == [(0, 3.0, False), (1, 2.0, False), (2, 1.0, False)]


def test_a_batch_has_a_table_with_a_row_for_each_seed(mirrored: Mirrored) -> None:
    table = mirrored.table("seeds-0-3", "seeds")
    assert table["columns"] == ["seed", "sweeps", "error"]
    assert table["data"] == [[0, 1, None], [1, "inf", None], [2, None, None], [3, None, "NaN"]]


def test_a_batch_with_a_failed_seed_is_failed(mirrored: Mirrored) -> None:
    run = mirrored.runs["seeds-0-3"]
    assert (run["exit_code"], run["summary"]["failed seeds"]) == (1, 1)


def test_the_verdict_run_has_the_claims_in_a_table(mirrored: Mirrored) -> None:
    table = mirrored.table("verdict", "claims")
    assert table["data"] == [["a", "below", "[1, 2]"], ["b", "not run", None]]


def test_the_verdict_run_draws_twenty_seeds_at_most(mirrored: Mirrored) -> None:
    assert len(mirrored.table("verdict", "curves/test/error_table")["data"]) == 20 * 2


def test_the_tables_are_in_the_summary_where_the_web_page_looks_for_them(
    mirrored: Mirrored,
) -> None:
    assert {"claims", "curves/test/error_table"} <= summary_keys(mirrored.records("verdict"))


def summary_keys(records: list[dict[str, Any]]) -> set[str]:
    updates = [r["summary"].get("update", {}) for r in records if r["type"] == "summary"]
    return {key.split("._type")[0] for update in updates for key in update}


def test_the_records_are_an_artifact_of_the_verdict_run(mirrored: Mirrored) -> None:
    listed = [r["artifact"] for r in mirrored.records("verdict") if r["type"] == "artifact"]
    (artifact,) = [artifact for artifact in listed if artifact["type"] == "records"]
    assert [file["path"] for file in artifact["manifest"]["contents"]] == ["0.json", "1.json"]


def test_the_key_is_nowhere_under_the_folder_of_an_offline_mirror(mirrored: Mirrored) -> None:
    files = [path for path in mirrored.root.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_everything_of_wandb_lies_under_the_folder(mirrored: Mirrored) -> None:
    assert list(mirrored.root.glob("wandb/data/artifacts/staging/*")) != []


def test_online_without_a_login_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(TrackingError, match=r"api\.wandb\.ai.*`wandb login`.*--wandb offline"):
        check_mode("online")


def test_an_unknown_mode_names_the_near_one() -> None:
    with pytest.raises(TrackingError, match="'offline'"):
        check_mode("ofline")


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_auto_follows_the_environment_and_the_login(
    environment: dict[str, str], mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert check_mode("auto") == mode


def test_a_login_in_netrc_counts_for_its_own_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine wandb.example.org login user password {KEY}\n")
    monkeypatch.delenv("WANDB_MODE")
    elsewhere = check_mode("auto")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert (elsewhere, check_mode("auto")) == ("offline", "online")


def test_the_server_of_the_user_settings_is_the_one_that_needs_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(TrackingError, match=r"wandb\.example\.org"):
        check_mode("online")


def test_disabled_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    with Tracker(tmp_path / "runs", "disabled", say=pytest.fail) as tracker:
        write_all(tracker, [])
    assert not (tmp_path / "runs").exists()


def test_our_process_never_imports_wandb_and_keeps_its_exit_status(tmp_path: Path) -> None:
    code = """
import pathlib, sys
from reimpl.tracking import Tracker
leave = sys.exit
with Tracker(pathlib.Path(sys.argv[1]), "offline", say=print) as tracker:
    tracker.start("run", paper="p", variant="v", seed=0, config={})
    tracker.finish("run", measurements={})
leave(7 if leave is sys.exit and "wandb" not in sys.modules else 1)
"""
    process = python(code, tmp_path)
    assert (process.communicate(), process.returncode) == (("", ""), 7)


def test_a_killed_parent_leaves_a_run_that_reads_as_failed(tmp_path: Path) -> None:
    code = """
import pathlib, sys, time
from reimpl.tracking import Tracker
tracker = Tracker(pathlib.Path(sys.argv[1]), "offline", say=print)
tracker.start("run", paper="p", variant="v", seed=0, config={})
while not list(pathlib.Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")):
    time.sleep(0.05)
print("started", flush=True)
time.sleep(60)
"""
    process = python(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate()
    until = time.monotonic() + 15
    while (state := offline_runs(tmp_path)[0]["state"]) != "failed" and time.monotonic() < until:
        time.sleep(0.1)
    assert state == "failed"


def test_what_wandb_raises_is_said_once_and_ends_nothing(
    tmp_path: Path, fake_wandb: Callable[..., None]
) -> None:
    fake_wandb(init="raise RuntimeError('no service')")
    said: list[str] = []
    with Tracker(tmp_path, "offline", say=said.append) as tracker:
        for run_id in ("a", "b"):
            begin(tracker, run_id)
            tracker.finish(run_id, measurements={})
    assert said[0] == "W&B: RuntimeError: no service"
    assert said[1].startswith("W&B: 2 of 2 runs are missing or incomplete there")
    assert len(said) == 2


def test_a_run_that_is_begun_again_leaves_the_one_that_was_cut_off_as_failed(
    tmp_path: Path, fake_wandb: Callable[..., None]
) -> None:
    ended = tmp_path / "ended"
    fake_wandb(finish=f"open({str(ended)!r}, 'a').write(f'{{exit_code}}\\n')")
    said: list[str] = []
    with Tracker(tmp_path, "offline", say=said.append) as tracker:
        begin(tracker)
        begin(tracker)
        tracker.finish("run", measurements={})
    assert sorted(ended.read_text().split()) == ["0", "1"]
    assert said == []


def test_a_server_out_of_reach_turns_the_mirror_to_offline(
    tmp_path: Path, fake_wandb: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(init="if settings.mode == 'online': raise OSError('no route')")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said: list[str] = []
    with Tracker(tmp_path, "online", say=said.append) as tracker:
        begin(tracker)
        tracker.finish("run", measurements={})
    (line,) = said
    assert line.startswith("W&B: not reachable (OSError: no route). Runs are kept offline")


def test_a_point_that_wandb_refuses_does_not_cost_the_run(
    tmp_path: Path, fake_wandb: Callable[..., None]
) -> None:
    fake_wandb(log="raise ValueError('refused')")
    said: list[str] = []
    with Tracker(tmp_path, "offline", say=said.append) as tracker:
        begin(tracker)
        tracker.point("run", 0, {"loss": 1.0})
        tracker.finish("run", measurements={})
    assert said == ["W&B: ValueError: refused"]


def test_a_wandb_that_hangs_costs_the_caller_microseconds_and_thins_the_points(
    tmp_path: Path, fake_wandb: Callable[..., None]
) -> None:
    fake_wandb(log="time.sleep(60)")
    said: list[str] = []
    tracker = Tracker(tmp_path, "offline", say=said.append)
    begin(tracker)
    values, points, before = {"loss": 1.0}, 4 * WAITING, time.thread_time()
    for step in range(points):
        tracker.point("run", step, values)
    cost = (time.thread_time() - before) / points
    waiting, before = tracker._queue.qsize(), time.monotonic()
    tracker.close(timeout=1.0)
    assert time.monotonic() - before < 3.0
    assert cost < 50e-6
    assert waiting <= WAITING
    assert [line.split(": ")[1].split(" ")[0] for line in said] == ["it", "1"]


@no_collecting()  # one pass over a process of the suite takes a third of a second
def test_a_point_costs_the_caller_microseconds(tmp_path: Path) -> None:
    with Tracker(tmp_path, "offline", say=pytest.fail) as tracker:
        before = time.thread_time()
        for run in range(20):
            begin(tracker, str(run))
            for step in range(200):
                tracker.point(str(run), step, {"test/error": 1.0, "train/error": 1.0})
        cost = (time.thread_time() - before) / (20 * 200)
        for run in range(20):
            tracker.finish(str(run), measurements={"test/error": 1.0})
    assert cost < 50e-6


@pytest.mark.parametrize("process", ["mirror", "service"])
def test_a_killed_process_of_wandb_is_survived_and_said(tmp_path: Path, process: str) -> None:
    said: list[str] = []
    tracker = Tracker(tmp_path, "offline", say=said.append)
    begin(tracker)
    while not list(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        time.sleep(0.05)
    assert tracker._process is not None
    mirror = tracker._process.pid
    os.kill(mirror if process == "mirror" else child_of(mirror), signal.SIGKILL)
    for step in range(1000):
        tracker.point("run", step, {"loss": 1.0})
    tracker.finish("run", measurements={})
    before = time.monotonic()
    tracker.close()
    assert time.monotonic() - before < 10
    assert said[-1].startswith("W&B: 1 of 1 runs are missing or incomplete there")


def child_of(pid: int) -> int:
    import psutil

    (child,) = psutil.Process(pid).children()
    return child.pid


def test_a_folder_that_cannot_be_made_ends_the_tracking_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    with Tracker(tmp_path / "file" / "runs", "offline", say=said.append) as tracker:
        begin(tracker)
        tracker.finish("run", measurements={})
    (line,) = said
    assert line.startswith("W&B: nothing is written to it, because NotADirectoryError")


def test_a_summary_keeps_misses_infinite_and_leaves_out_what_is_undefined() -> None:
    measured = [{"sweeps": 1.0}, {"sweeps": 3.0}, {"sweeps": math.inf}, {"sweeps": None}]
    assert summarise(measured)["sweeps"] == {
        "mean": math.inf,
        "median": 3.0,
        "min": 1.0,
        "max": math.inf,
        "n": 3,
    }


def test_a_reproduction_tells_the_whole_recipe_of_a_run_and_the_verdicts(
    tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    recipe = "lr = 0.2\nclip = 5\nschedule = [{ from = 5, lr = 0.1 }]"
    claims.write_text(claims.read_text().replace("lr = 0.2", recipe))
    result = reproduce(
        Request(
            paper="tiny",
            papers=(tiny_paper,),
            runs=tmp_path / "runs",
            variants=("two-inputs",),
            seeds=1,
            wandb="offline",
        )
    )
    told = {run["name"]: run for run in offline_runs(tmp_path / "runs")}
    config = told["seed-0"]["config"]
    (record,) = (record for record in result.evidence.records if record.part == "train")
    assert (config["clip"], config["schedule"]) == (5, [{"from": 5, "lr": 0.1}])
    assert (config["inputs"], config["epochs"], config["key"]) == (2, 10, record.key)
    assert told["seed-0"]["summary"]["test/error"] == record.measurements["test/error"]
    assert told["verdict"]["summary"].items() >= Counter(v.lane for v in result.verdicts).items()
