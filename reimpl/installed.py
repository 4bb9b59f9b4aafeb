"""What is installed here, read from the metadata beside the packages.

Importing `importlib.metadata` alone takes as long as two bare starts of Python, and its parser
reads a package's whole description to find the line with its version.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

_NAMED = re.compile(r"[-_.]+")


def version(package: str) -> str | None:
    """Of an installed package; None when it is not installed."""
    folder = _distributions(tuple(sys.path)).get(_plain(package))
    if folder is None:
        return None
    for file in (folder / "METADATA", folder / "PKG-INFO"):
        with suppress(OSError), file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("Version:"):
                    return line.partition(":")[2].strip()
    return None


def entry_points(group: str) -> list[tuple[str, str]]:
    """Name and target of the entry points of a group, in the order of `sys.path`."""
    folders = _distributions(tuple(sys.path)).values()
    return [found for folder in folders for found in _section(folder / "entry_points.txt", group)]


@cache
def _distributions(path: tuple[str, ...]) -> Mapping[str, Path]:
    """Package → its metadata; the first on the path hides the others, as for imports."""
    found: dict[str, Path] = {}
    for folder in _metadata_folders(path):
        found.setdefault(_plain(folder.stem.partition("-")[0]), folder)
    return found


def _plain(name: str) -> str:
    return _NAMED.sub("_", name).lower()


def _metadata_folders(path: tuple[str, ...]) -> Iterator[Path]:
    for place in dict.fromkeys(path):
        with suppress(OSError):  # a zip file, or gone
            inside = Path(place).iterdir()
            yield from sorted(p for p in inside if p.name.endswith((".dist-info", ".egg-info")))


def _section(path: Path, group: str) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # most packages have none
        return []
    found, here = [], False
    for line in map(str.strip, lines):
        if line.startswith("["):
            here = line == f"[{group}]"
        elif here and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found.append((name.strip(), value.partition("[")[0].strip()))
    return found
