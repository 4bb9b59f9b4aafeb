"""Datasets as tensors: fetched once, decoded once, checked against the paper, then memory-mapped.

`load` reads the `[data.NAME]` blocks of `claims.toml` through `datasets`: from the hub at the
pinned revision or, with `REIMPL_DATA_MIRROR=DIR`, from `DIR/<hub>`. What was decoded is kept
(`reimpl.cache`) and never altered.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from reimpl import cache, decoding, fetching
from reimpl.claims import Source
from reimpl.errors import DataError, near

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, DatasetDict
    from torch import Tensor

    from reimpl.paper import Sources

V = TypeVar("V")
Columns = Mapping[str, "Tensor | list[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """What is known of one split once it is decoded and verified."""

    name: str
    """The dataset's name in `claims.toml`."""
    split: str
    rows: int
    bytes: int
    """Size of the decoded columns in the cache."""
    sha256: str
    declared: bool
    """Whether `claims.toml` gives the checksum; then it is this one."""


def load(sources: Mapping[str, Source]) -> "Sources":
    """The datasets, each read when it is asked for: `load(sources)["mnist"]["train"]["image"]`.

    Images are uint8 tensors (N, H, W[, C]). Numbers are tensors (N,) or (N, K): int64 for whole
    numbers and truth values, float32 for others and for whole numbers with gaps, a gap being NaN.
    Text and ragged lists are lists; a missing text is "". A block with `files` has the one split
    "files", which maps each path to where the checked file lies.

    Raises:
        DataError: on first access, when the data are missing or are not what `claims.toml` says.
    """
    return _Lazy("dataset", {name: partial(_open, source) for name, source in sources.items()})


def verify(sources: Mapping[str, Source]) -> list[SplitFacts]:
    """Fetch what is missing and compute every checksum anew; a damaged cache is decoded again.

    Raises:
        DataError: the data are missing or are not what `claims.toml` says.
    """
    return [facts for source in sources.values() for facts in _verify(source)]


def pack(source: Source) -> dict[str, "np.ndarray[Any, Any]"]:
    """The bytes of a dataset's files, by path, for a machine that has neither cache nor mirror.

    Raises:
        DataError: the data are missing or are not what `claims.toml` says.
    """
    import numpy as np

    if source.files:
        paths = _files(source)
    else:
        _open(source)
        entry = cache.entry_of(source)
        found = (path for path in sorted(entry.rglob("*")) if path.is_file())
        paths = {path.relative_to(entry).as_posix(): path for path in found}
    return {name: np.fromfile(path, dtype=np.uint8) for name, path in paths.items()}


def packed_is_here(source: Source) -> bool:
    """Whether the cache has what `unpack` would put there."""
    return (
        cache.fetched(source) if source.files else cache.meta_of(cache.entry_of(source)) is not None
    )


def unpack(source: Source, packed: Mapping[str, "np.ndarray[Any, Any]"]) -> None:
    """Put a packed dataset into the cache, where every process of this machine maps it.

    Raises:
        DataError: the cache cannot be written.
    """
    from filelock import FileLock

    folder = cache.files_folder(source) if source.files else cache.entry_of(source)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if packed_is_here(source):
                return
            for name, content in packed.items():
                (building / name).parent.mkdir(parents=True, exist_ok=True)
                content.tofile(building / name)
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
        cache.evict(keep=folder)
    except OSError as error:
        raise cache.unwritable(source, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def missing(source: Source) -> str | None:
    """Why a dataset is not at hand, in one line, or None; nothing is decoded."""
    if source.files and cache.fetched(source):
        return None
    if not source.files and cache.meta_of(cache.entry_of(source)) is not None:
        return None
    try:
        if fetching.mirror_of(source) is not None:
            return None
    except DataError as error:
        return str(error)
    where = cache.named(source)
    return f"{where}: not in the cache; it will be fetched from the hub, which needs a network"


def fingerprint(columns: Columns) -> str:
    """SHA-256 over the names, types, shapes and bytes of the columns, in the order of the names."""
    import numpy as np

    digest = sha256()
    for name in sorted(columns):
        values = columns[name]
        if isinstance(values, list):
            kind, content = f"list {len(values)}", json.dumps(values).encode()
        else:
            array = np.ascontiguousarray(values)
            kind, content = f"{array.dtype.str} {list(array.shape)}", array.data
        digest.update(f"{name}\n{kind}\n".encode())
        digest.update(content)
    return digest.hexdigest()


# Lazy access


class _Lazy(Mapping[str, V], Generic[V]):
    """Values that are made when they are first asked for."""

    def __init__(self, what: str, makers: Mapping[str, Callable[[], V]]) -> None:
        self._what = what
        self._makers = makers
        self._made: dict[str, V] = {}

    def __getitem__(self, name: str) -> V:
        if name not in self._makers:
            raise DataError(f"unknown {self._what} '{name}'. {near(name, self._makers)}")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _open(source: Source) -> Mapping[str, Any]:
    """A dataset's splits, from the cache or decoded now; or its files."""
    if source.files:
        return {"files": _files(source)}
    entry = cache.entry_of(source)
    meta = cache.meta_of(entry) or _decode(source)
    cache.touch(entry)
    return _Lazy(
        f"split of {cache.named(source)}:",
        {name: partial(_columns, entry / name, split) for name, split in meta["splits"].items()},
    )


def _columns(folder: Path, split: Mapping[str, Any]) -> Columns:
    files = {column: folder / kept["file"] for column, kept in split["columns"].items()}
    return _Lazy("column", {column: partial(_read_column, file) for column, file in files.items()})


def _read_column(file: Path) -> "Tensor | list[Any]":
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8"))
    import numpy as np
    import torch

    # copy on write: torch wants a writable array, and the file must stay as it is
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def _verify(source: Source) -> list[SplitFacts]:
    if source.files:
        return [
            SplitFacts(
                name=source.name,
                split=name,
                rows=1,
                bytes=path.stat().st_size,
                sha256=source.files[name],
                declared=True,
            )
            for name, path in _files(source).items()
        ]
    opened = _open(source)
    kept = _kept(source)
    if any(fingerprint(columns) != kept[split]["sha256"] for split, columns in opened.items()):
        shutil.rmtree(cache.entry_of(source), ignore_errors=True)
        _open(source)
        kept = _kept(source)
    return [
        SplitFacts(
            name=source.name,
            split=split,
            rows=facts["rows"],
            bytes=sum(column["bytes"] for column in facts["columns"].values()),
            sha256=facts["sha256"],
            declared=split in source.sha256,
        )
        for split, facts in kept.items()
    ]


# Files that the paper reads itself


def _files(source: Source) -> dict[str, Path]:
    """Where each file lies: in the mirror, or fetched once. All are checked before any is read.

    Raises:
        DataError: a file is missing or is another than `claims.toml` says.
    """
    mirror = fetching.mirror_of(source)
    folder = cache.files_folder(source) if mirror is None else mirror
    amiss = _amiss(source, folder)
    if amiss is not None:
        if mirror is not None:
            raise amiss
        _fetch(source, folder)
    if mirror is None:
        cache.touch(folder)
    return {name: folder / name for name in source.files}


def _amiss(source: Source, folder: Path) -> DataError | None:
    """What is wrong with the first file that is not as `claims.toml` says."""
    for name, expected in source.files.items():
        path = folder / name
        if not path.is_file():
            return DataError(f"{cache.named(source)}: no file {path}")
        found = sha256(path.read_bytes()).hexdigest()
        if found != expected:
            return fetching.differs(source, name, found, at=path)
    return None


def _fetch(source: Source, folder: Path) -> None:
    """Fetch files into the cache; of several processes that want them one does the work."""
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if _amiss(source, folder) is not None:
                fetching.download(source)
        cache.evict(keep=folder)
    except OSError as error:
        raise cache.unwritable(source, error) from error


# The cache


def _kept(source: Source) -> Mapping[str, Any]:
    meta = cache.meta_of(cache.entry_of(source))
    if meta is None:
        raise DataError(
            f"{cache.named(source)}: the cache changed while it was read; run the command again"
        )
    return meta["splits"]


def _decode(source: Source) -> dict[str, Any]:
    """Fetch, check and keep a dataset; of several processes that want it one does the work."""
    from filelock import FileLock

    entry = cache.entry_of(source)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.parent / f".{entry.name}.lock"):
            meta = cache.meta_of(entry) or _build(source, entry)
        cache.evict(keep=entry)
    except OSError as error:
        raise cache.unwritable(source, error) from error
    return meta


def _build(source: Source, entry: Path) -> dict[str, Any]:
    """Decode into a folder of another name, check, rename."""
    building = entry.with_name(f".{entry.name}.partial")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    building.mkdir()
    try:
        splits = fetching.splits(source, building / "arrow")
        _check_rows(source, splits)
        written = {name: _write(source, splits[name], building / name) for name in source.splits}
        _check_classes(source, building, written)
        _check_sums(source, written)
        del splits
        shutil.rmtree(building / "arrow", ignore_errors=True)
        meta = {"hub": source.hub, "revision": source.revision, "splits": written}
        (building / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)  # damaged, or it would not be built again
        building.rename(entry)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return meta


def _write(source: Source, dataset: "Dataset", folder: Path) -> dict[str, Any]:
    """Decode one split's columns into files; returns its part of `meta.json`."""
    import numpy as np

    folder.mkdir()
    kept: dict[str, Any] = {}
    for column in dataset.column_names:
        values = decoding.values(dataset, column, where=f"{cache.named(source)}: column '{column}'")
        file = folder / quote(column, safe=" ")
        if isinstance(values, list):
            file = file.with_name(file.name + ".json")
            file.write_text(json.dumps(values), encoding="utf-8")
        else:
            file = file.with_name(file.name + ".npy")
            np.save(file, values)
        kept[column] = {"file": file.name, "bytes": file.stat().st_size}
    split = {"rows": len(dataset), "columns": kept}
    return {**split, "sha256": fingerprint(_columns(folder, split))}


# Checks


def _check_rows(source: Source, splits: "DatasetDict") -> None:
    for split, expected in source.splits.items():
        if split not in splits:
            known = near(split, map(str, splits))
            raise DataError(
                f"{cache.named(source)}: {fetching.origin(source)} has no split '{split}'. {known}"
            )
        rows = len(splits[split])
        if rows != expected:
            raise _differs(source, f"rows of split '{split}'", f"{expected:,}", f"{rows:,}")


def _check_classes(source: Source, folder: Path, written: Mapping[str, Any]) -> None:
    """Distinct values of the label over all declared splits."""
    if source.label is None or source.classes is None:
        return
    found: set[Any] = set()
    for split, facts in written.items():
        columns = _columns(folder / split, facts)
        if source.label not in columns:
            raise DataError(
                f"{cache.named(source)}: no column '{source.label}'. {near(source.label, columns)}"
            )
        values = columns[source.label]
        found.update(values if isinstance(values, list) else values.unique().tolist())
    if len(found) != source.classes:
        raise _differs(
            source, f"distinct values of '{source.label}'", f"{source.classes}", f"{len(found)}"
        )


def _check_sums(source: Source, written: Mapping[str, Any]) -> None:
    for split, expected in source.sha256.items():
        if split not in written:
            raise DataError(
                f"{cache.named(source)}: a checksum for split '{split}'. {near(split, written)}"
            )
        if written[split]["sha256"] != expected:
            raise _differs(
                source, f"checksum of split '{split}'", expected, written[split]["sha256"]
            )


def _differs(source: Source, what: str, expected: str, found: str) -> DataError:
    where, origin = cache.named(source), fetching.origin(source)
    return DataError(
        f"{where}: {what}: expected {expected}, found {found} in {origin}; "
        "fetch the data again, or correct claims.toml if the paper's data are these"
    )
