"""Keep runs: one JSON file each, found again by its key.

    root/<paper>/<variant>/<seed>-<key8>.json             a run that gave a result
    root/<paper>/<variant>/counts-<seed>-<key8>.json      one of part `counts`, or `baseline`
    root/<paper>/<variant>/<seed>-<key8>.error            a failed try, until a later one succeeds
    root/<paper>/<variant>/<seed>-<key8>.ckpt             where a run that was cut off goes on
    root/<paper>/<variant>/<seed>-<key8>.json.unreadable  set aside, never judged

    root/<paper>/.index                                   what these files say, to read them once
    root/<paper>/.verdicts                                what was last made of them (`kept`)

A file is written under a temporary name, synced and renamed: after a crash it is whole or absent.
"""

import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from math import inf, isfinite, isnan
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from urllib.parse import quote

from reimpl.claims import Scalar
from reimpl.collecting import no_collecting
from reimpl.errors import RecordError
from reimpl.index import BLOCK, Index, Row, Stamp

if TYPE_CHECKING:
    from filelock import FileLock

Part = Literal["train", "counts", "baseline"]
Status = Literal["ok", "error"]
Curve = list[list[float]]
"""Points [step, value]."""

SCHEMA = 1
CURVE_POINTS = 25
"""Points of a curve in `measured.jsonl`."""
STALE_SECONDS = 3600
"""A temporary file of this age belongs to a process that was killed."""


# One run


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept of one run; never edited."""

    schema: int = SCHEMA
    paper: str
    variant: str
    seed: int
    part: Part
    status: Status
    measurements: Mapping[str, float | bool | None]
    """Metric → value; `inf` is a target never reached, `None` a metric not defined for this run."""
    key: str
    key_parts: Mapping[str, str]
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    """What `--set` changed; such a run is never judged as the paper's."""
    model: str | None = None
    """The user's own model (`FILE.py:Class`); such a run is never judged as the paper's."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    started: str
    """ISO 8601, UTC."""
    wall_s: float
    cpu_s: float
    parameters: int | None = None
    flops: int | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    """The traceback of a failed run."""
    note: str | None = None
    file: str | None = field(default=None, compare=False, repr=False)
    """Where the fields are read, when they are asked for, that were not read before."""

    def to_json(self) -> str:
        """One line of strict JSON; infinity is the text "inf".

        Raises:
            RecordError: a number is NaN.
        """
        what = f"record {self.paper}/{self.variant} seed {self.seed}"
        table = {name: getattr(self, name) for name in _TYPES}
        return json.dumps(strict(table, what), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record of that line.

        Raises:
            RecordError: not JSON, another schema, or a field missing, unknown or of a wrong type.
        """
        try:
            table = _STRICT.decode(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"not JSON: {error}") from None
        _check(table)
        table["measurements"] = {k: _decode(v, k) for k, v in table["measurements"].items()}
        table["curves"] = {k: _curve(v, k) for k, v in table["curves"].items()}
        return cls(**table)

    if not TYPE_CHECKING:  # or every attribute would pass for one of a record's

        def __getattr__(self, name):
            """What was left in the file.

            Raises:
                RecordError: the file cannot be read any more.
            """
            if name not in _LATER:
                raise AttributeError(f"a record has no '{name}'")
            whole = _read_again(self.file)
            for field_ in _LATER:
                object.__setattr__(self, field_, getattr(whole, field_))
            return getattr(whole, name)


_NUMBER = (int, float)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "schema": (int,),
    "paper": (str,),
    "variant": (str,),
    "seed": (int,),
    "part": (str,),
    "status": (str,),
    "measurements": (dict,),
    "key": (str,),
    "key_parts": (dict,),
    "overrides": (dict,),
    "model": (str, type(None)),
    "curves": (dict,),
    "started": (str,),
    "wall_s": _NUMBER,
    "cpu_s": _NUMBER,
    "parameters": (int, type(None)),
    "flops": (int, type(None)),
    "environment": (dict,),
    "error": (str, type(None)),
    "note": (str, type(None)),
}


_SAME = ("part", "variant", "status")
"""Texts that are the same in many records, and kept once."""
_KEPT = (*_SAME, "seed", "measurements", "key", "started", "wall_s", "flops", "error")
"""What the index keeps of a record: what verdicts and plans ask for."""
_LATER = tuple(name for name in _TYPES if name not in ("paper", *_KEPT))


def _read_again(file: str) -> Record:
    try:
        return Record.from_json(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecordError) as error:
        raise RecordError(f"{file}: cannot be read any more: {error}") from None


def _check(table: Any) -> None:
    """A table of the known schema has exactly the known fields, each of its type."""
    if not isinstance(table, dict):
        raise RecordError("not a table of a record's fields")
    if table.get("schema") != SCHEMA:
        raise RecordError(f"schema {table.get('schema')!r} is not known here, only {SCHEMA}")
    odd = sorted(table.keys() ^ _TYPES.keys())
    if odd:
        raise RecordError(f"field '{odd[0]}' is {'unknown' if odd[0] in table else 'missing'}")
    for name, types in _TYPES.items():
        if not isinstance(table[name], types) or isinstance(table[name], bool):
            raise RecordError(f"field '{name}' is {table[name]!r}")
    if table["part"] not in get_args(Part) or table["status"] not in get_args(Status):
        raise RecordError(f"part is {table['part']!r} and status {table['status']!r}")


def strict(value: Any, what: str) -> Any:
    """The value as strict JSON takes it: infinities are the texts "inf" and "-inf".

    Args:
        value: of mappings, sequences, texts and numbers.
        what: it is, for the message.

    Raises:
        RecordError: a number is NaN.
    """
    if isinstance(value, float) and not isfinite(value):
        if isnan(value):
            raise RecordError(f"{what}: a number is NaN; a run that gives NaN is an error")
        return "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {str(k): strict(v, f"{what}: '{k}'") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item, what) for item in value]
    return value


_INFINITIES = {"inf": inf, "-inf": -inf}


def _decode(value: Any, name: str) -> Any:
    """A measurement: a number, a truth value or nothing."""
    if value is None or isinstance(value, int | float):
        return value
    if value in ("inf", "-inf"):
        return _INFINITIES[value]
    raise RecordError(f"'{name}' is {value!r}, no number")


def _curve(points: Any, name: str) -> Curve:
    try:
        if {len(point) for point in points} <= {2}:
            sum(chain.from_iterable(points))  # only numbers add up, and this is many times faster
            return points
    except TypeError:
        pass
    try:
        return [[_decode(step, name), _decode(value, name)] for step, value in points]
    except (TypeError, ValueError):
        raise RecordError(f"curve '{name}' is no list of points [step, value]") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not allowed")


_STRICT = json.JSONDecoder(parse_constant=_refuse)


# Many runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What `Store.read` found."""

    ok: list[Record]
    errors: list[Record]
    unreadable: list[Path]
    """Files set aside now or earlier, until somebody looks and removes them."""


class Store:
    """A folder of records. Several processes may write to it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, record: Record) -> Path:
        """Keep a record; a result takes the place of an earlier failure of the same run.

        Raises:
            RecordError: the folder cannot be written, or a number is NaN.
        """
        return self.write_many([record])[0]

    def write_many(self, records: Iterable[Record]) -> list[Path]:
        """Keep the records of a batch; each is whole or not there, whenever the process dies.

        Raises:
            RecordError: as for `write`.
        """
        records = list(records)
        texts = [(self.place(record), record.to_json() + "\n") for record in records]
        stamps: list[Stamp] = []
        try:
            for path, text in texts:
                path.parent.mkdir(parents=True, exist_ok=True)
                stamps.append(_put(path, text))
                if path.suffix == ".json":
                    path.with_suffix(".error").unlink(missing_ok=True)
            for folder in {path.parent for path, _ in texts}:
                _sync_folder(folder)
        except OSError as error:
            raise _unwritable(self.root, error) from None
        paths = [path for path, _ in texts]
        self._remember(records, paths, stamps)
        return paths

    def _remember(
        self, records: Sequence[Record], paths: Sequence[Path], stamps: Sequence[Stamp]
    ) -> None:
        """Tell the index what was just written, which need not be read then."""
        seen = time.time_ns()
        rows: dict[tuple[str, str], list[Row]] = {}
        for record, path, stamp in zip(records, paths, stamps, strict=True):
            place = record.paper, path.parent.name
            rows.setdefault(place, []).append(_row(record, path, stamp))
        for (paper, folder), written in rows.items():
            self._index(paper).add(folder, written, seen=seen)

    def read(self, paper: str) -> Records:
        """All records of a paper, by part, variant and seed.

        A file that cannot be read is renamed to `….unreadable`, and named each time. A file that is
        as it was when it was last read is not opened: its curves and environment, and a training's
        parts of the key, are read when they are asked for.
        """
        found = Records(ok=[], errors=[], unreadable=[])
        index = self._index(paper)
        with no_collecting():
            live = 0
            for folder in _folders(self.folder(paper)):
                live += _read_folder(folder, paper, index, found)
            index.tidy(live)
            for records in (found.ok, found.errors):
                records.sort(key=RUN)
        found.unreadable[:] = sorted(set(found.unreadable))  # one may have taken another's name
        return found

    def _index(self, paper: str) -> Index:
        return Index(self.folder(paper) / ".index", paper=paper, fields=_KEPT)

    def folder(self, paper: str) -> Path:
        """Where the records of a paper are; it may not be there yet."""
        return self.root / _safe(paper)

    def find(
        self, *, paper: str, variant: str, seed: int, key: str, part: Part = "train"
    ) -> Record | None:
        """The result of the run of that key, if there is one."""
        stem = self._stem(paper=paper, variant=variant, seed=seed, key=key, part=part)
        record = _read_or_set_aside(stem.with_suffix(".json"), paper)
        if not isinstance(record, Record) or record.key != key or record.status != "ok":
            return None
        return record

    def checkpoint_path(
        self, *, paper: str, variant: str, seed: int, key: str, part: Part = "train"
    ) -> Path:
        """Where that run keeps its checkpoint; the folder may not be there yet."""
        stem = self._stem(paper=paper, variant=variant, seed=seed, key=key, part=part)
        return stem.with_suffix(".ckpt")

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether this process is the only one at work on `key` (a run's key, a paper's slug).

        The claim ends with the block or with the process, however it dies.

        Raises:
            RecordError: the folder cannot be written.
        """
        lock = self._lock(key)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                with suppress(OSError):  # whoever waits for a lock sees that its file has gone
                    Path(lock.lock_file).unlink()
                lock.release()

    def _lock(self, key: str) -> "FileLock | None":
        from filelock import FileLock, Timeout  # late: 30 ms

        path = self.root / ".locks" / f"{_safe(key)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, blocking=False)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise _unwritable(self.root, error) from None
        return lock

    def place(self, record: Record) -> Path:
        """Where the record lies."""
        stem = self._stem(
            paper=record.paper,
            variant=record.variant,
            seed=record.seed,
            key=record.key,
            part=record.part,
        )
        return stem.with_suffix(".json" if record.status == "ok" else ".error")

    def _stem(self, *, paper: str, variant: str, seed: int, key: str, part: Part) -> Path:
        kind = "" if part == "train" else f"{part}-"
        return self.folder(paper) / _safe(variant) / f"{kind}{seed}-{key[:8]}"


RUN = attrgetter("part", "variant", "seed", "key")
"""What tells a run from others, and its place among them."""


def _safe(name: str) -> str:
    """A file name for any name; no name leads out of the folder."""
    quoted = quote(name, safe=" ,+()=")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _put(path: Path, text: str) -> Stamp:
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return status.st_mtime_ns, status.st_size


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut; not every file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read_or_set_aside(path: Path, paper: str) -> Record | Path | None:
    """The record, or where the unreadable file now lies, or None for no file."""
    try:
        record = Record.from_json(path.read_text(encoding="utf-8"))
        if record.paper == paper:
            return record
    except FileNotFoundError:
        return None
    except (RecordError, UnicodeDecodeError):
        pass
    except OSError:
        return path  # left where it is: it may be readable again tomorrow
    with suppress(OSError):
        return path.replace(path.with_name(f"{path.name}.unreadable"))
    return path


def _remove_stale(path: Path) -> None:
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink()


def _unwritable(folder: Path, error: OSError) -> RecordError:
    return RecordError(f"{folder}: {error.strerror}. Choose a folder that can be written.")


# Reading many of them


def _folders(place: Path) -> list[Path]:
    """The folders of a paper's variants."""
    try:
        with os.scandir(place) as inside:
            return sorted(Path(entry.path) for entry in inside if entry.is_dir())
    except OSError:  # nothing was run here yet
        return []


def _read_folder(folder: Path, paper: str, index: Index, found: Records) -> int:
    """Add a folder's records to `found`, opening only what the index does not know.

    Returns:
        How many it knew.
    """
    seen = time.time_ns()
    known, left = _split(folder, index.read(folder.name), found)
    _keep(_recalled(known, paper, folder), found)
    names = sorted(left.items())
    for first in range(0, len(names), BLOCK):  # block by block, so that a kill costs little
        fresh: list[Row] = []
        for name, stamp in names[first : first + BLOCK]:
            record = _read_or_set_aside(folder / name, paper)
            if isinstance(record, Record):
                fresh.append(_row(record, folder / name, stamp))
            elif record is not None:
                found.unreadable.append(record)
        _keep(_recalled(fresh, paper, folder), found)  # without what is long
        index.add(folder.name, fresh, seen=seen)
    return len(known)


def _split(
    folder: Path, rows: dict[str, Row], found: Records
) -> tuple[list[Row], dict[str, Stamp]]:
    """The rows whose files are as they were, and the files that are to be read.

    What was set aside is told; what a kill left behind is removed.
    """
    known, left = list[Row](), dict[str, Stamp]()
    with suppress(OSError), os.scandir(folder) as inside:
        for entry in inside:
            name = entry.name
            if name.endswith((".json", ".error")):
                stamp, row = _stamp(entry), rows.get(name)
                if row is not None and (row[1], row[2]) == stamp:
                    known.append(row)
                else:
                    left[name] = stamp
            elif name.endswith(".unreadable"):
                found.unreadable.append(folder / name)
            elif name.endswith((".tmp", ".part")):
                _remove_stale(folder / name)
    return known, left


def _stamp(file: "os.DirEntry[str]") -> Stamp:
    try:
        status = file.stat()
    except OSError:
        return 0, -1  # no file has that size: whoever reads it will see what is wrong
    return status.st_mtime_ns, status.st_size


def _keep(records: Sequence[Record], found: Records) -> None:
    found.ok.extend(record for record in records if record.status == "ok")
    found.errors.extend(record for record in records if record.status != "ok")


def _row(record: Record, path: Path, stamp: Stamp) -> Row:
    """A record as the index keeps it."""
    plain = replace(record, measurements=dict(record.measurements))
    return path.name, *stamp, *(getattr(plain, name) for name in _KEPT)


def _recalled(rows: Sequence[Row], paper: str, folder: Path) -> list[Record]:
    """The records of a folder's rows; a field of all is filled in one go, many times faster."""
    if not rows:
        return []
    files, _, _, *columns = zip(*rows, strict=True)
    table: dict[str, Iterable[Any]] = dict(zip(_KEPT, columns, strict=True))
    table |= {name: map(intern, table[name]) for name in _SAME}
    table |= {"paper": repeat(paper), "file": map(f"{folder}{os.sep}".__add__, files)}
    records = list(map(object.__new__, repeat(Record, len(rows))))
    for name, column in table.items():
        fill = getattr(Record, name).__set__  # the slot of a frozen record
        deque(map(fill, records, column), maxlen=0)
    return records


# Records kept with the paper


_LINE = re.compile(
    r'^\{"schema":\d+,"paper":"[^"]*","variant":("(?:[^"\\]|\\.)*"),"seed":\d+,"part":"(\w+)",'
    r'"status":"ok"',
    re.MULTILINE,
)
"""How the line of a run begins that gave a result; told apart without reading it all."""


def count_measured(path: Path) -> Counter[tuple[str, str]]:
    """Part and variant → promoted results, as the lines begin; none when the file is not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Counter()
    return _counted(text)


def _counted(text: str) -> Counter[tuple[str, str]]:
    begun = Counter(_LINE.findall(text))
    return Counter({(part, json.loads(name)): count for (name, part), count in begun.items()})


def read_measured(
    path: Path,
    *,
    without: Collection[tuple[str, str]] = frozenset(),
    passed: Counter[tuple[str, str]] | None = None,
) -> list[Record]:
    """The promoted records of a paper; none when the file is not there.

    Args:
        path: `measured.jsonl` of the paper.
        without: parts and variants whose results are passed over.
        passed: counts these.

    Raises:
        RecordError: a line is no record; names file and line.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{where}: cannot be read: {error}") from None
    counted = _counted(text) if without else Counter()
    if passed is not None:
        passed.update({place: counted[place] for place in counted.keys() & set(without)})
    if counted.keys() <= set(without) and counted.total() == text.count("\n"):
        return []
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        begins = _LINE.match(line) if without else None
        if begins and (begins[2], json.loads(begins[1])) in without:
            continue
        try:
            records.append(Record.from_json(line))
        except RecordError as error:
            raise RecordError(f"{where}:{number}: {error}") from None
    return records


def write_measured(
    path: Path, records: Iterable[Record], *, without_curves: Collection[str] = ()
) -> None:
    """Keep records with the paper, one line each, in an order that keeps diffs small.

    Args:
        path: `measured.jsonl` of the paper.
        records: what to promote; their curves are thinned.
        without_curves: variants whose curves are dropped, such as those of 200 vectorised seeds.

    Raises:
        RecordError: the file cannot be written.
    """
    lines = []
    for record in sorted(records, key=RUN):
        keep = {} if record.variant in without_curves else record.curves
        thin = {name: _thinned(curve) for name, curve in keep.items()}
        lines.append(replace(record, curves=thin).to_json())
    try:
        _put(path, "".join(f"{line}\n" for line in lines))
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def _thinned(curve: Sequence[list[float]]) -> Curve:
    """At most `CURVE_POINTS` points, evenly spread, the first and the last among them."""
    if len(curve) <= CURVE_POINTS:
        return list(curve)
    step = (len(curve) - 1) / (CURVE_POINTS - 1)
    return [curve[round(i * step)] for i in range(CURVE_POINTS)]
