"""Numbers that came from somewhere else: another framework, a colleague's spreadsheet.

A `.csv` file has the columns variant, seed, metric, value; a `.json` file is a list of objects with
these keys, or has such a list under "measurements". `inf` is a target that was never reached. A run
in which a metric is not defined has no row.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reimpl.claims import LARGEST, Claims
from reimpl.errors import RequestError, near
from reimpl.judging import judge_all
from reimpl.verdict import Verdict

COLUMNS = ("variant", "seed", "metric", "value")
WORDS = {"true": 1.0, "false": 0.0, "inf": math.inf, "+inf": math.inf, "infinity": math.inf}
"""Values that a spreadsheet writes as words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value of one metric in one run."""

    variant: str
    seed: int
    metric: str
    value: float
    """In the metric's unit; infinite for a target that was never reached."""
    where: str = field(default="measurements", compare=False)
    """File and line, for messages."""


def read_measurements(path: Path) -> list[Measurement]:
    """Read a file of measurements.

    Raises:
        RequestError: the file cannot be read, a column is missing or unknown, a seed is not a whole
            number, a value is not a number, or a measurement appears twice.
    """
    readers = {".csv": _csv_rows, ".json": _json_rows}
    if path.suffix.lower() not in readers:
        raise RequestError(f"{path.name}: measurements are read from .csv and .json files")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path.name}: is not UTF-8 text; save it as UTF-8") from None
    rows = readers[path.suffix.lower()](text, path.name)
    measurements = [_measurement(row, where) for where, row in rows]
    if not measurements:
        raise RequestError(f"{path.name}: holds no measurements")
    _by_metric(measurements)
    return measurements


def judge_external(claims: Claims, measurements: Sequence[Measurement]) -> list[Verdict]:
    """A verdict for every claim, from measurements made elsewhere.

    Raises:
        RequestError: a measurement speaks of a variant or a metric that the claims do not have, or
            appears twice.
    """
    for measurement in measurements:
        _check_known(measurement.where, "variant", measurement.variant, claims.variants)
        _check_known(measurement.where, "metric", measurement.metric, claims.metrics)
    return judge_all(claims, _by_metric(measurements))


def _check_known(where: str, column: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise RequestError(f"{where}: unknown {column} '{name}'. {near(name, known)}")


def _by_metric(measurements: Iterable[Measurement]) -> dict[str, dict[str, dict[int, float]]]:
    """Metric → variant → seed → value."""
    grouped: dict[str, dict[str, dict[int, float]]] = {}
    for m in measurements:
        seeds = grouped.setdefault(m.metric, {}).setdefault(m.variant, {})
        if m.seed in seeds:
            what = f"variant '{m.variant}', seed {m.seed}, metric '{m.metric}'"
            raise RequestError(f"{m.where}: {what} appears twice; keep one of them")
        seeds[m.seed] = m.value
    return grouped


def _csv_rows(text: str, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise RequestError(f"{name}: line {reader.line_num}: not valid CSV: {error}") from None
    if not lines:
        raise RequestError(f"{name}: is empty; the first line names {', '.join(COLUMNS)}")
    number, header = lines[0]
    _check_columns(header, f"{name}: line {number}", "column")
    rows = []
    for number, cells in lines[1:]:
        where = f"{name}: line {number}"
        if len(cells) != len(header):
            what = f"{len(cells)} cells under {len(header)} columns"
            raise RequestError(f"{where}: {what}; a decimal comma must be a point")
        rows.append((where, dict(zip(header, cells, strict=True))))
    return rows


def _json_rows(text: str, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"{name}: line {error.lineno}"
        raise RequestError(f"{where}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{name}: cannot be read: {error}") from None
    if isinstance(found, dict) and "measurements" in found:
        found = found["measurements"]
    if not isinstance(found, list):
        raise RequestError(f"{name}: must be a list of objects, or have one under 'measurements'")
    rows = [(f"{name}: measurement {i}", row) for i, row in enumerate(found, start=1)]
    for where, row in rows:
        if not isinstance(row, dict):
            raise RequestError(f"{where}: must be an object with {', '.join(COLUMNS)}")
        _check_columns(list(row), where, "key")
    return rows


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, no key of which is there twice.

    Raises:
        ValueError: one is.
    """
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return table


def _check_columns(found: Sequence[str], where: str, word: str) -> None:
    """Each of the four names once and no other."""
    if len(found) == 1 and found[0].count(";") + found[0].count("\t") == len(COLUMNS) - 1:
        raise RequestError(f"{where}: cells must be separated by commas, is {found[0]!r}")
    for name in found:
        if name not in COLUMNS:
            raise RequestError(f"{where}: unknown {word} '{name}'. {near(name, COLUMNS)}")
    for name in COLUMNS:
        if found.count(name) != 1:
            problem = "missing" if name not in found else "repeated"
            raise RequestError(f"{where}: {problem} {word} '{name}'")


def _measurement(row: Mapping[str, Any], where: str) -> Measurement:
    return Measurement(
        variant=_name(row["variant"], f"{where}, 'variant'"),
        seed=_seed(row["seed"], f"{where}, 'seed'"),
        metric=_name(row["metric"], f"{where}, 'metric'"),
        value=_value(row["value"], f"{where}, 'value'"),
        where=where,
    )


def _name(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given.isprintable() or not given:
        raise RequestError(f"{where}: must be a name, is {given!r}")
    return given


def _seed(given: Any, where: str) -> int:
    try:
        if isinstance(given, bool | float):
            raise ValueError
        return int(given)
    except (TypeError, ValueError):
        raise RequestError(f"{where}: must be a whole number, is {given!r}") from None


def _value(given: Any, where: str) -> float:
    if given is None or given == "":
        raise RequestError(f"{where}: is empty; leave the row out where the metric is not defined")
    try:
        word = str(given).lower()
        value = WORDS[word] if word in WORDS else float(given)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"{where}: must be a number or 'inf', is {given!r}") from None
    if math.isnan(value) or value == -math.inf:
        what = "a number, or 'inf' for a target that was never reached"
        raise RequestError(f"{where}: must be {what}, is {given!r}")
    if LARGEST < abs(value) < math.inf:
        raise RequestError(f"{where}: must be at most {LARGEST:g}, is {given!r}")
    return value
