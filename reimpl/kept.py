"""The verdicts of the last time, so that asking the same again imports no statistics.

A verdict is a function of claims, measurements and the code that judges, so that it can be kept
with a hash of all these. The file is never the truth: when anything that it rests on has changed,
or it is torn, or cannot be written, the claims are judged as if it were not there.
"""

import json
import marshal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from reimpl.installed import version
from reimpl.verdict import Verdict

JUDGES = ("claims", "errors", "inference", "judging", "rules", "verdict")
"""Modules that a verdict comes from."""
LIBRARIES = ("numpy", "scipy")


def verdicts(path: Path, given: object, judge: Callable[[], list[Verdict]]) -> list[Verdict]:
    """What `judge` gives, or gave when it was last given the same.

    Args:
        path: where they are kept; nothing is, when its folder is not there.
        given: all that `judge` goes by, as values whose `repr` tells them apart.
        judge: is called when that is new.
    """
    rests_on = _hashed([repr(given), *_code(), *(str(version(name)) for name in LIBRARIES)])
    found = _read(path, rests_on)
    if found is None:
        found = judge()
        text = json.dumps([asdict(verdict) for verdict in found])
        with suppress(OSError):
            path.write_text(f"{_hashed([rests_on, text])}\n{text}", encoding="utf-8")
    return found


def digest(numbers: Any) -> str:
    """A hash of numbers in dicts and lists, ten times as fast as by their `repr`.

    Raises:
        ValueError: something else is among them.
    """
    return sha256(marshal.dumps(numbers, 2)).hexdigest()  # 2: later ones tell the same from equal


def _read(path: Path, rests_on: str) -> list[Verdict] | None:
    try:
        mark, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return _decoded(json.loads(text)) if mark == _hashed([rests_on, text]) else None


def _decoded(table: list[dict[str, Any]]) -> list[Verdict]:
    for row in table:
        for name in ("interval", "variants"):
            row[name] = None if row[name] is None else tuple(row[name])
    return [Verdict(**row) for row in table]


def _code() -> Iterable[str]:
    here = Path(__file__).parent
    return [(here / f"{name}.py").read_text(encoding="utf-8") for name in JUDGES]


def _hashed(texts: Iterable[str]) -> str:
    whole = sha256()
    for text in texts:
        whole.update(f"{len(text)} ".encode())
        whole.update(text.encode(errors="surrogatepass"))
    return whole.hexdigest()
