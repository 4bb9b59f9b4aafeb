"""What this machine has: versions, devices, folders, data, W&B, papers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reimpl.errors import ReimplError
from reimpl.report import Check


def examine(root: Path, papers: Sequence[Path]) -> list[Check]:
    """Look at everything.

    Args:
        root: the folder of the records.
        papers: folders of papers that are not installed.
    """
    return [check for look in _LOOKS for check in look(root, papers)]


def _look(what: str, detail: str, *, well: bool = True) -> Check:
    return Check(what=what, state="ok" if well else "warn", detail=detail)


def _look_at_versions(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from reimpl.installed import version

    found: dict[str, str] = {"python": sys.version.split()[0]}
    for package in ("reimpl", "torch", "numpy", "pytorch-lightning", "datasets", "wandb"):
        found[package] = version(package) or "missing"
    detail = ", ".join(f"{name} {number}" for name, number in found.items())
    return [_look("versions", detail, well="missing" not in found.values())]


def _look_at_machine(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    import psutil
    import torch

    from reimpl.engines import cores

    memory = psutil.virtual_memory()
    free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [
        _look("cores", str(cores())),
        _look("memory", free, well=memory.available > 1e9),
        _look("devices", ", ".join(devices)),
    ]


def _look_at_runs(root: Path, _papers: Sequence[Path]) -> list[Check]:
    nearest = next(place for place in (root, *root.parents) if place.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    detail = str(root) if writable else f"{root} cannot be written; --runs DIR names another"
    checks = [_look("runs", detail, well=writable)]
    unreadable = list(root.glob("*/*/*.unreadable"))
    if unreadable:
        text = f"{len(unreadable)} set aside as unreadable, such as {unreadable[0]}"
        checks.append(_look("records", text, well=False))
    cut = len(list(root.glob("*/*/*.ckpt")))
    checks.append(_look("cut-off runs", f"{cut} with a checkpoint to go on from"))
    return [*checks, _look_at_locks(root)]


def _look_at_locks(root: Path) -> Check:
    """A lock ends with its process, so that one that is held means work going on."""
    from reimpl.records import Store

    held = 0
    for path in root.glob(".locks/*.lock"):
        try:
            with Store(root).claim(path.stem) as mine:
                held += not mine
        except ReimplError as error:
            return _look("locks", str(error), well=False)
    return _look("locks", f"{held} held by runs going on" if held else "none held")


def _look_at_data(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from reimpl import cache

    bound = os.environ.get("REIMPL_CACHE_GB", "20")
    checks = [_look("cache", f"{cache.root()}: {cache.size() / 1e9:.2f} of {bound} GB")]
    mirror = os.environ.get("REIMPL_DATA_MIRROR")
    if mirror:
        there = Path(mirror).expanduser().is_dir()
        checks.append(_look("mirror", mirror if there else f"{mirror} is no folder", well=there))
    else:
        checks.append(_look("mirror", "none; REIMPL_DATA_MIRROR names one"))
    return checks


def _look_at_wandb(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from reimpl.tracking import check_mode

    try:
        return [_look("W&B", f"mode {check_mode('auto')}")]
    except ReimplError as error:
        return [_look("W&B", str(error), well=False)]


def _look_at_papers(_root: Path, papers: Sequence[Path]) -> list[Check]:
    from reimpl import registry

    found = registry.entries(papers)
    good = [entry.slug for entry in found if entry.broken is None]
    broken = [_look(e.slug, f"broken: {e.broken}", well=False) for e in found if e.broken]
    return [_look("papers", ", ".join(good) or "none", well=bool(good)), *broken]


def _look_at_git(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from shutil import which

    there = which("git") is not None
    return [
        _look("git", "found" if there else "not found: records will name no commit", well=there)
    ]


_LOOKS: tuple[Callable[[Path, Sequence[Path]], list[Check]], ...] = (
    _look_at_versions,
    _look_at_machine,
    _look_at_runs,
    _look_at_data,
    _look_at_wandb,
    _look_at_git,
    _look_at_papers,
)
