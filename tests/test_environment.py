"""What a record says of where it was made."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reimpl.environment import environment


def test_the_environment_names_versions_and_no_person_host_or_path() -> None:
    found_here = environment(Path(__file__).parent)
    assert {"python", "torch", "numpy", "lightning", "cpu", "cores", "gpu"} <= found_here.keys()
    texts = [value for value in found_here.values() if isinstance(value, str)]
    assert os.uname().nodename not in texts
    assert [text for text in texts if re.search(r"(^|\s)/\w", text)] == []


def test_the_environment_knows_the_commit_and_its_dirtiness(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert environment(tmp_path)["git_commit"] is None
    (tmp_path / "clean").mkdir()
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    clean = environment(tmp_path / "clean")
    (tmp_path / "dirty").mkdir()
    (tmp_path / "dirty" / "file").write_text("")
    dirty = environment(tmp_path / "dirty")
    assert re.fullmatch("[0-9a-f]{40}", clean["git_commit"])
    assert (clean["git_dirty"], dirty["git_dirty"]) == (False, True)


@pytest.mark.parametrize(
    ("name", "dirty"),
    [("train.log", False), ("own model.py", True), ("näher.py", True), ("table.csv", True)],
)
def test_a_log_is_no_change_of_the_code(tmp_path: Path, name: str, dirty: bool) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    (tmp_path / name).write_text("")
    assert environment(tmp_path)["git_dirty"] is dirty


def test_a_folder_outside_git_has_no_commit(tmp_path: Path) -> None:
    assert environment(tmp_path)["git_commit"] is None


def test_no_package_is_imported_to_ask_for_its_version() -> None:
    code = (
        "import sys; from reimpl.environment import environment; environment();"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
