"""Datasets as tensors: fetched once, decoded once, checked against the paper, then memory-mapped.

`load` reads the `[data.NAME]` blocks of `claims.toml` through `datasets`: from the hub at the
pinned revision or, with `REIMPL_DATA_MIRROR=DIR`, from `DIR/<hub>`. What was decoded is kept under
`cache_root()`, one folder for each block:

    decoded/<hash of the block>/meta.json              rows, checksums and files of each split
    decoded/<hash of the block>/<split>/<column>.npy   images, numbers; text and ragged lists: .json

A folder is complete or absent: it is written under another name and renamed. Everything in the
block is part of the hash, so a checksum that changes in `claims.toml` is never answered from an
older decoding.
"""

import json
import os
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from reimpl.claims import Source
from reimpl.errors import DataError, near

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, DatasetDict
    from PIL.Image import Image
    from torch import Tensor

    from reimpl.paper import Sources

V = TypeVar("V")
Columns = Mapping[str, "Tensor | list[Any]"]

LAYOUT = 1
"""Version of the cache's layout; part of the hash."""
HUB_TIMEOUT_S = 5.0
GIGABYTE = 1e9


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
        entry = _entry(source)
        found = (path for path in sorted(entry.rglob("*")) if path.is_file())
        paths = {path.relative_to(entry).as_posix(): path for path in found}
    return {name: np.fromfile(path, dtype=np.uint8) for name, path in paths.items()}


def packed_is_here(source: Source) -> bool:
    """Whether the cache has what `unpack` would put there."""
    return _fetched(source) if source.files else _meta(_entry(source)) is not None


def unpack(source: Source, packed: Mapping[str, "np.ndarray[Any, Any]"]) -> None:
    """Put a packed dataset into the cache, where every process of this machine maps it.

    Raises:
        DataError: the cache cannot be written.
    """
    from filelock import FileLock

    folder = _files_folder(source) if source.files else _entry(source)
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
        _evict(keep=folder)
    except OSError as error:
        raise _unwritable(source, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def missing(source: Source) -> str | None:
    """Why a dataset is not at hand, in one line, or None; nothing is decoded."""
    if source.files and _fetched(source):
        return None
    if not source.files and _meta(_entry(source)) is not None:
        return None
    try:
        if _mirror(source) is not None:
            return None
    except DataError as error:
        return str(error)
    return (
        f"{_name(source)}: not in the cache; it will be fetched from the hub, which needs a network"
    )


def declared(sources: Mapping[str, Source]) -> str:
    """A hash over hub, revision, config, rows and checksums of the blocks; no data are touched."""
    rows, files = ("hub", "revision", "config", "splits", "sha256"), ("hub", "revision", "files")
    return _hash(
        {
            name: {k: _block(s)[k] for k in (files if s.files else rows)}
            for name, s in sources.items()
        }
    )


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


def cache_root() -> Path:
    """The folder of everything decoded: `REIMPL_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("REIMPL_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("reimpl")


def cache_size() -> int:
    """Bytes that decoded datasets take."""
    return sum(_size(entry) for entry in _entries())


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
    entry = _entry(source)
    meta = _meta(entry) or _decode(source)
    with suppress(OSError):  # a cache that may only be read is as good
        os.utime(entry / "meta.json")
    return _Lazy(
        f"split of {_name(source)}:",
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
        shutil.rmtree(_entry(source), ignore_errors=True)
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
    mirror = _mirror(source)
    if mirror is None and not _fetched(source):
        _download(source)
    folder = _files_folder(source) if mirror is None else mirror
    paths = {name: folder / name for name in source.files}
    for name, path in paths.items():
        if not path.is_file():
            raise DataError(f"{_name(source)}: no file {path}")
        found = sha256(path.read_bytes()).hexdigest()
        if found != source.files[name]:
            raise _differs(source, f"checksum of '{name}'", source.files[name], found)
    return paths


def _files_folder(source: Source) -> Path:
    return cache_root() / "files" / _hash(_block(source))


def _fetched(source: Source) -> bool:
    return all((_files_folder(source) / name).is_file() for name in source.files)


def _download(source: Source) -> None:
    """Fetch every file to a folder of another name, then rename it."""
    if source.url is None:
        raise DataError(
            f"{_name(source)}: claims.toml names no 'url' to fetch it from; set "
            "REIMPL_DATA_MIRROR to a folder that has it"
        )
    folder = _files_folder(source)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for name in source.files:
            url = source.url.format(revision=source.revision, file=quote(name))
            target = building / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with urlopen(url, timeout=HUB_TIMEOUT_S) as answer:
                target.write_bytes(answer.read())
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except OSError as error:  # URLError and timeouts are among them
        raise DataError(
            f"{_name(source)}: not in the cache, and {source.url.partition('{')[0]}… cannot be "
            f"read ({error}). Set REIMPL_DATA_MIRROR to a folder that has {source.hub}, or run "
            "once with a network"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


# The cache


def _block(source: Source) -> dict[str, Any]:
    values = {f.name: getattr(source, f.name) for f in fields(Source) if f.name != "name"}
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _entry(source: Source) -> Path:
    return cache_root() / "decoded" / _hash({"layout": LAYOUT, **_block(source)})


def _entries() -> list[Path]:
    """Complete datasets; a name with a dot in front is one that is being built."""
    found = (meta.parent for meta in (cache_root() / "decoded").glob("*/meta.json"))
    return [entry for entry in found if not entry.name.startswith(".")]


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        with suppress(OSError):  # another process may evict it
            total += file.stat().st_size
    return total


def _used(entry: Path) -> float:
    try:
        return (entry / "meta.json").stat().st_mtime
    except OSError:
        return 0.0


def _meta(entry: Path) -> dict[str, Any] | None:
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


def _kept(source: Source) -> Mapping[str, Any]:
    meta = _meta(_entry(source))
    if meta is None:
        raise DataError(
            f"{_name(source)}: the cache changed while it was read; run the command again"
        )
    return meta["splits"]


def _decode(source: Source) -> dict[str, Any]:
    """Fetch, check and keep a dataset; of several processes that want it one does the work."""
    from filelock import FileLock

    entry = _entry(source)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.parent / f".{entry.name}.lock"):
            meta = _meta(entry) or _build(source, entry)
        _evict(keep=entry)
    except OSError as error:
        raise _unwritable(source, error) from error
    return meta


def _unwritable(source: Source, error: OSError) -> DataError:
    return DataError(
        f"{_name(source)}: the cache {cache_root()} cannot be written "
        f"({error.strerror or error}); set REIMPL_CACHE to a folder that can"
    )


def _build(source: Source, entry: Path) -> dict[str, Any]:
    """Decode into a folder of another name, check, rename."""
    building = entry.with_name(f".{entry.name}.partial")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    building.mkdir()
    try:
        splits = _fetch(source, building / "arrow")
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
        values = _values(source, dataset, column)
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


def _evict(*, keep: Path) -> None:
    """Delete what was not used for longest until the cache is within its bound; `keep` stays."""
    bound = _bound()
    entries = sorted(_entries(), key=_used)
    sizes = {entry: _size(entry) for entry in entries}
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


# Fetching


def _name(source: Source) -> str:
    return f"data '{source.name}' ({source.hub})"


def _mirror(source: Source) -> Path | None:
    """The dataset's folder in the mirror; None without a mirror."""
    chosen = os.environ.get("REIMPL_DATA_MIRROR")
    if not chosen:
        return None
    folder = Path(chosen).expanduser().absolute() / source.hub
    if not folder.is_dir():
        raise DataError(
            f"{_name(source)}: the mirror has no folder {folder}; copy the dataset there as the "
            "hub lays it out, or unset REIMPL_DATA_MIRROR"
        )
    return folder


def _fetch(source: Source, scratch: Path) -> "DatasetDict":
    """All splits, undecoded, through `datasets`, which keeps its own files in `scratch`.

    Raises:
        DataError: nothing there, no network, or nothing that `datasets` can read.
    """
    mirror = _mirror(source)
    if mirror is None and not _hub_answers():
        raise DataError(_three_ways(source))
    import datasets

    try:
        with _progress_only_on_a_terminal():
            return datasets.load_dataset(
                source.hub if mirror is None else str(mirror),
                source.config,
                revision=source.revision if mirror is None else None,
                cache_dir=str(scratch),
                verification_mode="no_checks",  # ours say more: rows, classes, checksums
            )
    except ConnectionError as error:
        raise DataError(_three_ways(source)) from error
    except Exception as error:  # of half a dozen libraries; each means that the data cannot be had
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "; its README.md names configs and files, and all must be there" if mirror else ""
        raise DataError(
            f"{_name(source)}: {_origin(source)} cannot be read: {first}{advice}"
        ) from error


def _three_ways(source: Source) -> str:
    return (
        f"{_name(source)}: not in the cache, and the hub cannot be reached. Three ways to get it: "
        "set REIMPL_DATA_MIRROR to a folder laid out as the hub lays it out; run once with a "
        f"network, and it stays in the cache; or copy {_entry(source)} from a machine that has it "
        "(REIMPL_CACHE moves the cache)"
    )


def _origin(source: Source) -> str:
    mirror = _mirror(source)
    return f"the mirror's {mirror}" if mirror else f"the hub's revision {source.revision[:12]}"


def _hub_answers() -> bool:
    """Whether the hub answers; unasked, `datasets` retries for 20 seconds before it gives up."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        urlopen(Request(hub, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(
            error.reason, ssl.SSLError
        )  # it answers; `datasets` has certificates of its own
    except OSError:
        return False
    return True


@contextmanager
def _progress_only_on_a_terminal() -> Iterator[None]:
    import datasets

    silence = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.enable_progress_bars()


# Checks


def _check_rows(source: Source, splits: "DatasetDict") -> None:
    for split, expected in source.splits.items():
        if split not in splits:
            known = near(split, map(str, splits))
            raise DataError(f"{_name(source)}: {_origin(source)} has no split '{split}'. {known}")
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
                f"{_name(source)}: no column '{source.label}'. {near(source.label, columns)}"
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
                f"{_name(source)}: a checksum for split '{split}'. {near(split, written)}"
            )
        if written[split]["sha256"] != expected:
            raise _differs(
                source, f"checksum of split '{split}'", expected, written[split]["sha256"]
            )


def _differs(source: Source, what: str, expected: str, found: str) -> DataError:
    return DataError(
        f"{_name(source)}: {what}: expected {expected}, found {found} in {_origin(source)}; "
        "fetch the data again, or correct claims.toml if the paper's data are these"
    )


# Decoding


def _values(source: Source, dataset: "Dataset", column: str) -> "np.ndarray | list[Any]":
    """One column as an array where it has a shape, else as a list.

    Raises:
        DataError: an image is damaged or of another size than the first, or the column's type is
            not one of ours.
    """
    import datasets

    where = f"{_name(source)}: column '{column}'"
    if isinstance(dataset.features[column], datasets.Image):
        stored = dataset.cast_column(column, datasets.Image(decode=False))[column]
        return _images(where, [_encoded(image) for image in stored])
    values = dataset.with_format("arrow")[:][column]
    array = _numbers(values)
    return _listed(where, values) if array is None else array


def _numbers(column: Any) -> "np.ndarray | None":
    """An Arrow column as int64 or float32; None when it is not numbers of one shape."""
    import numpy as np
    import pyarrow as pa

    nested = pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType)
    try:
        array = np.asarray(column.to_pylist()) if nested else column.to_numpy()
    except ValueError:  # ragged
        return None
    kinds = {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float32}
    return array.astype(kinds[array.dtype.kind]) if array.dtype.kind in kinds else None


def _listed(where: str, column: Any) -> list[Any]:
    listed = ["" if value is None else value for value in column.to_pylist()]
    try:
        json.dumps(listed)
    except TypeError as error:
        raise DataError(
            f"{where} is neither images, numbers, text nor lists of them: {error}"
        ) from None
    return listed


def _encoded(image: Mapping[str, Any] | None) -> bytes:
    """The file of one image; empty when there is none."""
    if image is None:
        return b""
    return image["bytes"] or Path(image["path"]).read_bytes()


def _images(where: str, files: list[bytes]) -> "np.ndarray":
    """Image files as uint8 (N, H, W[, C]); where some are in colour, all are."""
    import numpy as np

    mode = _mode({_picture(where, row, file).mode for row, file in enumerate(files)})
    images = np.empty((len(files), 0, 0), dtype=np.uint8)
    for row, file in enumerate(files):
        pixels = np.asarray(_picture(where, row, file, mode))
        if row == 0:
            images = np.empty((len(files), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{where}: image {row} is {pixels.shape}, image 0 is {images.shape[1:]}; "
                "one tensor needs one size, so resize them before they are put in the mirror"
            )
        images[row] = pixels
    return images


def _mode(modes: set[str]) -> str:
    if modes <= {"L", "1"}:
        return "L"
    return "RGBA" if modes & {"RGBA", "LA"} else "RGB"


def _picture(where: str, row: int, file: bytes, mode: str | None = None) -> "Image":
    """An image file opened (its header read), or decoded to a mode."""
    from PIL import Image

    try:
        picture = Image.open(BytesIO(file))
        decoded = picture if mode is None else picture.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
        raise DataError(f"{where}: image {row} cannot be decoded: {error}") from None
    if picture.mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}:
        raise DataError(f"{where}: image {row} has mode {picture.mode}, which 8 bits cannot hold")
    return decoded
