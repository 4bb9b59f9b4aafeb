import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from reimpl.reading import load_claims

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "minimal_paper"
OURS = ("reimpl", "papers", "baselines", "tests")

# Stands in for Python: makes a `.venv` that holds itself, notes what pip is asked for, and fails as
# tests do.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  "-c"*) exit {too_old} ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) echo "$*" >> pip.log ;;
  "-m pytest"*) exit 1 ;;
esac
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=~!; ]", line)[0]) for line in requirements}


def runtime() -> set[str]:
    return names(PROJECT["dependencies"])


def development() -> set[str]:
    return names(PROJECT["optional-dependencies"]["dev"]) - {"reimpl"}  # with its own extras


def extras() -> set[str]:
    """What papers need beyond the harness, with what stands in brackets: `gymnasium[mujoco]`."""
    optional = PROJECT["optional-dependencies"]
    lines = [line for name, listed in optional.items() if name != "dev" for line in listed]
    inside = {normal(part) for line in lines for part in re.findall(r"\[(.+?)\]", line)}
    return names(lines) | inside


def required(slug: str) -> set[str]:
    return {
        normal(name) for name in load_claims(ROOT / "papers" / slug / "claims.toml").paper.requires
    }


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, _, version in pairs}


def imported(*folders: str) -> set[str]:
    """Distributions that the code under the folders imports."""
    known = packages_distributions()
    modules = {module for folder in folders for module in modules_under(ROOT / folder)}
    foreign = modules - set(sys.stdlib_module_names) - {*OURS, "conftest"}
    found = {module: known.get(module, [module]) for module in foreign}
    return {normal(module if module in sold else sold[0]) for module, sold in found.items()}


def modules_under(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def tracked() -> list[Path]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for line in found.stdout.splitlines() if (path := ROOT / line).is_file()]


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # of the `make test` that may run these tests
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder in which `make` finds its files and a fake Python."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return with_python(tmp_path, too_old=0)


def with_python(folder: Path, *, too_old: int) -> Path:
    python = folder / "python"
    python.write_text(FAKE_PYTHON.format(too_old=too_old), encoding="utf-8")
    python.chmod(0o755)
    return folder


def test_make_help_lists_every_target() -> None:
    declared = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert declared is not None
    shown = re.findall(r"^  make (\w+) +\S", make("help").stdout, re.MULTILINE)
    assert sorted(shown) == sorted(declared[1].split())


def test_make_installs_from_the_pins_and_a_second_time_nothing(clone: Path) -> None:
    for _ in range(2):
        make("test", "PYTHON=./python", folder=clone)
    calls = (clone / "pip.log").read_text(encoding="utf-8").splitlines()
    assert [("-c constraints.txt" in call, "-e .[dev]" in call) for call in calls] == [(True, True)]


def test_make_installs_again_when_the_pins_change(clone: Path) -> None:
    make("test", "PYTHON=./python", folder=clone)
    later = (clone / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    make("test", "PYTHON=./python", folder=clone)
    assert len((clone / "pip.log").read_text(encoding="utf-8").splitlines()) == 2


def test_a_target_fails_when_its_command_fails(clone: Path) -> None:
    assert make("test", "PYTHON=./python", folder=clone).returncode != 0


def test_an_old_python_gets_one_clear_line(clone: Path) -> None:
    with_python(clone, too_old=1)
    said = make("reproduce", "PYTHON=./python", folder=clone).stderr.splitlines()
    assert len([line for line in said if "too old" in line and "3.11" in line]) == 1
    assert not (clone / ".venv").exists()


def test_a_missing_python_gets_one_clear_line(clone: Path) -> None:
    said = make("reproduce", "PYTHON=./nowhere", folder=clone).stderr.splitlines()
    assert len([line for line in said if "./nowhere" in line and "3.11" in line]) == 1


def test_every_import_is_declared() -> None:
    assert sorted(imported("reimpl", "papers", "baselines") - runtime() - extras()) == []
    assert sorted(imported("tests") - runtime() - development() - extras()) == []


def test_only_papers_that_say_so_import_an_extra() -> None:
    assert sorted(imported("reimpl", "baselines") & extras()) == ["ray"]  # its engine
    slugs = sorted(path.parent.name for path in (ROOT / "papers").glob("*/claims.toml"))
    found = {slug: imported(f"papers/{slug}") & extras() for slug in slugs}
    assert {slug: used for slug, used in found.items() if used != required(slug)} == {}


def test_every_declared_dependency_is_imported() -> None:
    assert sorted(runtime() - imported("reimpl", "papers", "baselines")) == []


def test_every_declared_dependency_is_pinned() -> None:
    assert sorted((runtime() | development() | extras()) - set(pins())) == []


def test_pins_are_plain_versions_that_any_index_knows() -> None:
    plain = re.compile(r"\d+(\.\w+)*")
    assert [name for name, version in pins().items() if not plain.fullmatch(version)] == []


def test_papers_in_the_folder_are_those_that_are_registered() -> None:
    registered = PROJECT["entry-points"]["reimpl.papers"]
    assert registered == {slug: f"papers.{slug}:PAPER" for slug in registered}
    folders = sorted(path.parent.name for path in (ROOT / "papers").glob("*/claims.toml"))
    assert sorted(registered) == folders


def test_version_is_the_same_wherever_it_is_written() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [PROJECT["version"]]
    assert re.findall(r"^## \[(\d\S*)\]", changelog, re.MULTILINE)[0] == PROJECT["version"]


def test_no_file_names_a_machine_or_an_index() -> None:
    here = ["/" + "root/", "/" + "work/", "py" + "pi.org", "//py" + "pi", "files.python" + "hosted"]
    suspects = [path for path in tracked() if path.suffix not in (".npy", ".parquet", ".png")]
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in suspects}
    found = [(str(path.relative_to(ROOT)), word) for path in texts for word in here]
    assert [(path, word) for path, word in found if word in texts[ROOT / path]] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/clusters.md", "docs/claims.md"]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_page_of_keys_is_what_the_types_say(tmp_path: Path) -> None:
    script = ROOT / "docs" / "reference.py"
    copy = tmp_path / script.name
    copy.write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, copy], check=True)
    made, kept = tmp_path / "claims.md", script.with_name("claims.md")
    assert made.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")


def test_the_tour_names_every_module_and_no_other() -> None:
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| \d \| ([^|]+) \|", tour, re.MULTILINE)
    named = {name.rstrip("/") for cell in cells for name in re.findall(r"`([\w/]+)`", cell)}
    package = {path.stem for path in (ROOT / "reimpl").iterdir() if path.stem[0] not in "_."}
    assert named == package - {"py"}  # py.typed


def test_readme_shows_the_minimal_paper_as_it_is() -> None:
    missing = [path.name for path in sources() if path.read_text(encoding="utf-8") not in README]
    assert missing == []


def test_minimal_paper_is_under_60_lines() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources()) < 60


def sources() -> list[Path]:
    return [EXAMPLE / "__init__.py", EXAMPLE / "claims.toml"]
