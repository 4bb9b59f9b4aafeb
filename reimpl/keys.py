"""What decides a run, hashed: a run of the same key is not made again."""

import ast
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from reimpl.claims import RIVALS, USUAL_NUMBERS, Claims, Scalar, Source, Variant
from reimpl.errors import RecordError
from reimpl.installed import version
from reimpl.records import Part, strict

KEY_SCHEMA = 1
"""Raised when the harness itself changes what a run computes."""


def key_parts(
    *,
    claims: Claims,
    variant: Variant,
    seed: int,
    part: Part,
    overrides: Mapping[str, Scalar],
    code: str,
    model_file: Path | None,
    data: str,
) -> dict[str, str]:
    """What decides a run's outcome, by name.

    Nothing incidental is in it: README, order of variants, published numbers, margins, paths.

    Args:
        claims: the paper's; only how a metric is reached counts, or scored for a baseline.
        variant: its id, recipe and settings count.
        seed: of the run.
        part: of the run.
        overrides: what `--set` changed.
        code: `code_digest` of the paper's folder.
        model_file: further code that counts: a rival's or somebody's own model, or the folder of
            the baselines.
        data: the fingerprint of the data, empty when there are none.
    """
    return {
        "schema": str(KEY_SCHEMA),
        "part": part,
        "seed": str(seed),
        "variant": _digest([variant.id, _recipe(variant), variant.settings, *_folds(variant)]),
        "metrics": _digest(_metric_rules(claims, part)),
        "overrides": _canonical(overrides),
        "paper_code": code,
        "model": "the paper's" if model_file is None else code_digest(model_file),
        "data": data,
        "torch": version("torch") or "none",
        "numpy": version("numpy") or "none",
    }


def declared(sources: Mapping[str, Source]) -> str:
    """A hash over hub, revision, config, rows and checksums of the blocks; no data are touched."""
    rows, files = ("hub", "revision", "config", "splits", "sha256"), ("hub", "revision", "files")
    table = {n: {k: _plain(s, k) for k in (files if s.files else rows)} for n, s in sources.items()}
    return sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:32]


def _plain(source: Source, name: str) -> Any:
    value = getattr(source, name)
    return dict(value) if isinstance(value, Mapping) else value


def key(parts: Mapping[str, str]) -> str:
    """The SHA-256 of the parts, in hex."""
    return sha256(_canonical(parts).encode()).hexdigest()


class Keys:
    """The keys of runs that differ in nothing but their seed; what comes before it hashed once."""

    def __init__(self, parts: Mapping[str, str]) -> None:
        self.parts = parts
        text = _canonical({**parts, "seed": ""})
        before, mark, after = text.partition('"seed":"')  # inside a value its quotes are escaped
        self._before = sha256(f"{before}{mark}".encode())
        self._after = after

    def key(self, seed: int) -> str:
        """The same as `key` of the parts with this seed."""
        digest = self._before.copy()
        digest.update(f"{seed}{self._after}".encode())
        return digest.hexdigest()

    def __call__(self, seed: int) -> tuple[str, dict[str, str]]:
        """The key of this seed, and its parts."""
        return self.key(seed), {**self.parts, "seed": str(seed)}


_WORDS = {
    "schema": "the harness's rules for runs",
    "variant": "the variant's recipe or settings",
    "metrics": "how a metric of claims.toml is reached or scored",
    "paper_code": "the paper's code",
    "model": "the code of the model",
    "data": "the data",
}
_SHOWN = ("part", "seed", "overrides", "torch", "numpy", "schema")
"""Parts that say something to a reader; the others are digests."""


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """In words, what differs between the parts of two keys.

    >>> changed({"torch": "2.12.0", "seed": "3"}, {"torch": "2.13.0", "seed": "3"})
    ['torch changed: 2.12.0 → 2.13.0']
    """
    found = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, "none"), new.get(name, "none")
        if was != now:
            arrow = f": {was} → {now}" if name in _SHOWN else ""
            found.append(f"{_WORDS.get(name, name)} changed{arrow}")
    return found


def _folds(variant: Variant) -> list[int]:
    return [variant.folds] if variant.folds > 1 else []


def _recipe(variant: Variant) -> Mapping[str, Any]:
    recipe = variant.recipe
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)} if recipe else {}
    # the usual numbers came later than many a record, whose key stays
    return {k: v for k, v in values.items() if k not in USUAL_NUMBERS or v != USUAL_NUMBERS[k]}


def _metric_rules(claims: Claims, part: Part) -> Mapping[str, Any]:
    """What the harness derives by the metric blocks: steps to a target, a baseline's score."""
    if part == "baseline":
        return {m.name: [m.split, m.score] for m in claims.metrics.values() if m.score}
    return {
        m.name: [m.reaches.curve, m.reaches.target, claims.metrics[m.reaches.curve].better]
        for m in claims.metrics.values()
        if m.reaches
    }


def _canonical(value: Any) -> str:
    return json.dumps(strict(value, "key"), sort_keys=True, separators=(",", ":"))


def _digest(value: Any) -> str:
    return sha256(_canonical(value).encode()).hexdigest()[:16]


def code_digest(place: Path) -> str:
    """A hash of what the Python in a file or folder says, not of its formatting or docstrings.

    A paper's rivals are left out: each counts for the variants that name it.

    Raises:
        RecordError: a file cannot be read.
    """
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    files = [file for file in files if place / RIVALS not in file.parents]
    root = place if place.is_dir() else place.parent
    try:
        return _digest({path.relative_to(root).as_posix(): _file_digest(path) for path in files})
    except OSError as error:
        raise RecordError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _file_digest(path: Path) -> str:
    status = path.stat()
    return _parsed_digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _parsed_digest(path: Path, _mtime: int, _size: int) -> str:
    """Of the statements, without comments, docstrings and layout; of the bytes if not Python."""
    text = path.read_bytes()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return sha256(text).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return sha256(ast.unparse(tree).encode(errors="surrogatepass")).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or a text below a field: neither does anything."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
