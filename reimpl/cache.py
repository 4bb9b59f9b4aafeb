"""Where decoded datasets are kept, how large they are, and which go first.

    decoded/<hash of the block>/meta.json              rows, checksums and files of each split
    decoded/<hash of the block>/<split>/<column>.npy   images, numbers; text and ragged lists: .json
    files/<hash of the block>/…                        files that a paper reads itself

A folder is complete or absent: it is written under another name and renamed. Everything in the
block is part of the hash, so a checksum that changes in `claims.toml` is never answered from an
older decoding.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from reimpl.claims import Source
from reimpl.errors import DataError

LAYOUT = 1
"""Version of the layout; part of the hash."""
GIGABYTE = 1e9


def root() -> Path:
    """The folder of everything decoded: `REIMPL_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("REIMPL_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("reimpl")


def size() -> int:
    """Bytes that datasets take, decoded or as files."""
    return sum(size_of(entry) for entry in _entries())


def named(source: Source) -> str:
    """The dataset in the words of messages."""
    return f"data '{source.name}' ({source.hub})"


def files_folder(source: Source) -> Path:
    """Where the files of a block with `files` lie once they are fetched."""
    return root() / "files" / _hash(_block(source))


def fetched(source: Source) -> bool:
    """Whether all of them are there."""
    return all((files_folder(source) / name).is_file() for name in source.files)


def _block(source: Source) -> dict[str, Any]:
    values = {f.name: getattr(source, f.name) for f in fields(Source) if f.name != "name"}
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def entry_of(source: Source) -> Path:
    """Where a decoded dataset is kept; it may not be there yet."""
    return root() / "decoded" / _hash({"layout": LAYOUT, **_block(source)})


def _entries() -> list[Path]:
    """Complete datasets; a name with a dot in front is one that is being built."""
    found = [meta.parent for meta in (root() / "decoded").glob("*/meta.json")]
    found += [folder for folder in (root() / "files").glob("*") if folder.is_dir()]
    return [entry for entry in found if not entry.name.startswith(".")]


def size_of(entry: Path) -> int:
    """Bytes of a dataset."""
    total = 0
    for file in entry.rglob("*"):
        with suppress(OSError):  # another process may evict it
            total += file.stat().st_size
    return total


def touch(entry: Path) -> None:
    """Note that it was used now."""
    with suppress(OSError):  # a cache that is read only, or another process evicted it
        os.utime(_mark(entry))


def _used(entry: Path) -> float:
    try:
        return _mark(entry).stat().st_mtime
    except OSError:
        return 0.0


def _mark(entry: Path) -> Path:
    """What tells by its time when a dataset was used."""
    meta = entry / "meta.json"
    return meta if meta.exists() else entry


def meta_of(entry: Path) -> dict[str, Any] | None:
    """What the entry holds, or None when it is absent or its files are not as they were written."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        whole = all(
            (entry / name / column["file"]).stat().st_size == column["bytes"]
            for name, split in meta["splits"].items()
            for column in split["columns"].values()
        )
    except (OSError, ValueError, KeyError, TypeError):  # cut in half, or edited by hand
        return None
    return meta if whole else None


def unwritable(source: Source, error: OSError) -> DataError:
    """The mistake of a cache that cannot be written."""
    return DataError(
        f"{named(source)}: the cache {root()} cannot be written "
        f"({error.strerror or error}); set REIMPL_CACHE to a folder that can"
    )


def evict(*, keep: Path) -> None:
    """Delete what was not used for longest until the cache is within its bound; `keep` stays."""
    bound = _bound()
    entries = sorted(_entries(), key=_used)
    sizes = {entry: size_of(entry) for entry in entries}
    total = sum(sizes.values())
    for entry in entries:
        if total <= bound:
            return
        if entry != keep:
            shutil.rmtree(entry, ignore_errors=True)
            total -= sizes[entry]


def _bound() -> float:
    """The cache's bound in bytes."""
    text = os.environ.get("REIMPL_CACHE_GB", "20")
    try:
        return float(text) * GIGABYTE
    except ValueError:
        raise DataError(f"REIMPL_CACHE_GB must be a number of gigabytes, is '{text}'") from None
