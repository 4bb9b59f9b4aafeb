from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from reimpl import cgroup
from reimpl.engines import cores, room

Group = Callable[..., None]
GIGABYTE = 2**30


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """Writes the files of a control group, and says which groups this process is in."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "groups")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")

    def write(own: str, folder: str, **files: object) -> None:
        cgroup.OWN.write_text(own)
        place = cgroup.ROOT / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name.replace("_", ".", 1)).write_text(f"{content}\n")

    return write


def test_version_2_leaves_the_least_of_the_groups_around(group: Group) -> None:
    own, stat = "0::/job/step\n", "anon 5\ninactive_file 100"
    group(own, "job/step", memory_max="max", memory_current=300, memory_stat=stat)
    assert cgroup.memory_left() == inf
    group(own, "job", memory_max=1000, memory_current=700, memory_stat=stat, cpu_max="max 1000")
    assert cgroup.memory_left() == 1000 - 700 + 100
    assert cgroup.processors() == inf
    group(own, "", cpu_max="250000 100000")
    assert cgroup.processors() == 2.5


def test_version_1_leaves_the_least_of_the_groups_around(group: Group) -> None:
    own = "7:memory:/slurm/job_1/step_0\n3:cpu,cpuacct:/slurm/job_1\n1:name=systemd:/\n0::/\n"
    stat = "inactive_file 7\ntotal_inactive_file 100"
    limits = {"memory_usage_in_bytes": 700, "memory_stat": stat}
    group(own, "memory/slurm/job_1/step_0", memory_limit_in_bytes=2**63 - 4096, **limits)
    group(own, "memory/slurm/job_1", memory_limit_in_bytes=1000, **limits)
    assert cgroup.memory_left() == 1000 - 700 + 100
    group(own, "cpu/slurm", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100_000)
    assert cgroup.processors() == inf
    group(own, "cpu", cpu_cfs_quota_us=150_000, cpu_cfs_period_us=100_000)
    assert cgroup.processors() == 1.5


def test_a_group_that_a_container_does_not_see_is_limited_by_what_it_sees(group: Group) -> None:
    own = "0::/kubepods/pod1/abc\n"
    group(own, "", memory_max=1000, memory_current=1100, memory_stat="inactive_file 0")
    assert cgroup.memory_left() == 0.0


def test_without_groups_nothing_is_limited(group: Group) -> None:
    assert (cgroup.memory_left(), cgroup.processors()) == (inf, inf)


@pytest.mark.parametrize(("quota", "most"), [(0.5, 1), (1.0, 1), (1.5, 2), (999.0, 8)])
def test_cores_are_those_that_the_group_has_time_for(
    monkeypatch: pytest.MonkeyPatch, quota: float, most: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cgroup, "processors", lambda: quota)
    assert cores() == most


def test_the_room_is_within_the_memory_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory_left", lambda: 2**20 * 10.0)
    assert room().memory_mb == pytest.approx(8.0)


def test_no_more_threads_compute_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reimpl.engines.cores", lambda: 2)
    assert [room(asked).threads for asked in (None, 1, 2, 8)] == [2, 1, 2, 2]
