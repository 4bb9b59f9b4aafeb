"""Writes `claims.md`, every block and key of a `claims.toml`, from the types that read it.

Run by hand after a change of `reimpl.claims`; a test compares the page with what this writes.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from reimpl import claims

PAGE = Path(__file__).with_name("claims.md")
HEAD = """# Every key of a `claims.toml`

Written by `docs/reference.py` from the types that read the file, which refuse any other key. A key
without a default must be there. [The README](../README.md#a-paper-of-your-own) shows a whole file,
[CONTRIBUTING](../CONTRIBUTING.md) says what makes a good claim.
"""
VARIANT = """Its keys, those of its recipe (unless the paper has a `fit` of its own) and the paper's
own settings stand side by side. `extends = "ID"` takes over everything but `id` and `says` from a
variant above.
"""
CLAIM = """`kind` is one of the seven below. These keys are every claim's:
"""
BLOCKS: tuple[tuple[str, type, str], ...] = (
    ("## `[paper]`", claims.Citation, ""),
    ("## `[data.NAME]`", claims.Source, ""),
    ('## `[metric."SPLIT/NAME"]`', claims.Metric, ""),
    ("### `reaches` of a metric", claims.Reaches, ""),
    ("## `[setting.NAME]`", claims.Setting, ""),
    ("## `[[variant]]`", claims.Variant, VARIANT),
    ("### The recipe of a variant", claims.Recipe, ""),
    ("## `[[claim]]`", claims._Claim, CLAIM),
    *((f'### `kind = "{name}"`', kind, "") for name, kind in claims.KINDS.items()),
    ("### `spread` of a value", claims.Spread, ""),
    ("## `[[deviation]]`", claims.Deviation, ""),
    ("## `[[gap]]`", claims.Gap, ""),
)
NO_KEYS = ("name", "recipe", "settings")
"""Fields that stand in a block's head, or whose own keys stand in the block."""
PLAIN: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    claims.Printed: "number as printed",
}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for block in BLOCKS for line in section(*block))])


def section(head: str, of: type, more: str) -> Iterator[str]:
    """A block's head, what it is, and a row for each key of its own."""
    yield f"{head}\n"
    said = inspect.getdoc(of) or ""
    yield more or f"{said.splitlines()[0].partition(' block: ')[2].capitalize() or said}\n"
    yield "| key | takes | unless told | says |\n| --- | --- | --- | --- |"
    shared = {field.name for field in fields(claims._Claim)} if of is not claims._Claim else set()
    under = told()
    for field in fields(of):
        if field.name in NO_KEYS or (issubclass(of, claims._Claim) and field.name in shared):
            continue
        cells = f"`{field.name}`", takes(field.type), default(field), under[of.__name__, field.name]
        yield f"| {' | '.join(cells)} |"
    yield ""


def told() -> dict[tuple[str, str], str]:
    """(Class, field) → the docstring under the field."""
    found: dict[tuple[str, str], str] = {}
    for block in ast.parse(inspect.getsource(claims)).body:
        if isinstance(block, ast.ClassDef):
            for field, below in zip(block.body, block.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    name, text = ast.unparse(field.target), ast.literal_eval(below.value)
                    found[block.name, name] = " ".join(text.split()).replace("|", "\\|")
    return found


def takes(hint: Any) -> str:
    """A type in words."""
    kind, options = get_origin(hint), [o for o in get_args(hint) if o not in (NoneType, ...)]
    if kind is Literal:
        return " or ".join(f'`"{option}"`' for option in options)
    if kind in (Union, UnionType):
        return " or ".join(map(takes, options))
    if kind is tuple:
        return f"list of {takes(options[0])}"
    if kind is not None:
        return f"table of {takes(options[-1])}"
    return PLAIN.get(hint, "table")


def default(field: Field[Any]) -> str:
    """What a key is when it is not there."""
    value = field.default
    if field.default_factory is not MISSING or value is None or value == ():
        return "none"
    if value is MISSING:
        return "before the slash" if field.name == "split" else ""
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
