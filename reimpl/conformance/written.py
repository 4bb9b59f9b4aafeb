"""What a paper's files say, read and not run."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from reimpl import registry
from reimpl.claims import RIVALS, variants_of
from reimpl.records import Record, read_measured
from reimpl.registry import Entry

MODEL_LINES = 150
HARNESS = frozenset({"reimpl.claims", "reimpl.errors", "reimpl.paper"})
"""What a paper may know of it."""
ARGUMENTS, TOOLS = ("argparse", "click", "typer"), ("datasets", "ray", "wandb")
NOT_FOR_PAPERS = frozenset((*ARGUMENTS, *TOOLS, "baselines", "lightning", "pytorch_lightning"))
"""A paper parses no arguments, fetches nothing and calls no tracker or cluster."""

_MARKS = (
    r"tab(le)?s?|figs?|figures?|sec(tion)?s?|eq(uation)?s?|pp?|pages?|app(endix)?|ch(ap(ter)?)?|lines?"
    r"|(foot)?note|box|alg(orithm)?|listing|theorem|lemma|proposition|corollary|definition|example"
)
_PLACE = re.compile(
    rf"(§|\b(?i:{_MARKS})\b\.?)\s*[(\"'‘“]?[\dA-Z]"
    r"|\b(?i:abstract|appendix|caption|introduction|conclusions?|unconfirmed)\b"
    r"|\b(?i:the \S+ (problem|experiment|theorem|section|table|figure))\b"  # called by its name
)


# claims.toml


def claims_without_a_place(entry: Entry) -> Iterator[str]:
    """Claims whose source leads nowhere; a proxy's figure is ours and has no place in the paper."""
    for claim in entry.claims.claims.values():
        if not claim.proxy and not _PLACE.search(claim.source):
            hint = "name a table, figure, section, page or equation, or say 'unconfirmed'"
            yield f"claim '{claim.id}': source '{claim.source}' is no place; {hint}"


def vague_definitions(entry: Entry) -> Iterator[str]:
    """Metrics whose definition is a single word."""
    for metric in entry.claims.metrics.values():
        if len(metric.definition.split()) < 2:
            yield f"metric '{metric.name}': '{metric.definition}' does not say what is measured"


def unused_settings(entry: Entry) -> Iterator[str]:
    """Settings that no variant fixes."""
    used = {name for v in entry.claims.variants.values() for name in v.settings}
    yield from (f"no variant fixes setting '{s}'" for s in entry.claims.settings if s not in used)


def unspoken_variants(entry: Entry) -> Iterator[str]:
    """Variants that are there for nothing, as far as the file shows."""
    spoken = {name for claim in entry.claims.claims.values() for name in variants_of(claim)}
    spoken |= {d.switch for d in entry.claims.deviations if d.switch}
    for name in entry.claims.variants:
        if name not in spoken:
            yield f"no claim and no deviation speaks of variant '{name}'"


# The code, unread by Python


def forbidden_imports(entry: Entry) -> Iterator[str]:
    """Imports of another paper, of the harness's inside or of the tools around a model."""
    others = {other.slug for other in registry.entries()}
    others |= {path.parent.name for path in entry.folder.parent.glob("*/claims.toml")}
    others -= {entry.slug, entry.folder.name}
    for path in sorted(entry.folder.rglob("*.py")):
        place = path.relative_to(entry.folder)
        for name, line in _imported(path, depth=len(place.parts)):
            why = _forbidden(name, others, of_model=place == Path("model.py"))
            if why is not None:
                yield f"{place}:{line} imports {name}: {why}"
        for line in _of_rivals(path, inside=place.parts[0] == RIVALS):
            yield f"{place}:{line} imports a rival: keys know its file for its variants alone"


def _of_rivals(path: Path, *, inside: bool) -> Iterator[int]:
    """Lines that import something of the folder `rivals/`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                dotted = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                here = f"{RIVALS}." * (inside and level == 1)
                dotted = [f"{here}{module or ''}.{alias.name}" for alias in names]
            case _:
                continue
        if any(RIVALS in name.split(".") for name in dotted):
            yield node.lineno


def _imported(path: Path, *, depth: int) -> Iterator[tuple[str, int]]:
    """Dotted names and their lines; relative imports only where they leave the paper's folder."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (not node.level or node.level > depth):
            module = ".." * bool(node.level) + (f"{node.module}." if node.module else "")
            yield from ((f"{module}{alias.name}", node.lineno) for alias in node.names)


def _forbidden(name: str, others: set[str], *, of_model: bool) -> str | None:
    parts = name.split(".")
    if others & set(parts) or not parts[0]:
        return "a paper stands alone; copy what it needs"
    if parts[0] in NOT_FOR_PAPERS:
        return "that is the harness's work"
    if parts[0] == "reimpl" and of_model:
        return "a model knows nothing of the harness"
    if parts[0] == "reimpl" and ".".join(parts[:2]) not in HARNESS:
        return f"of the harness a paper knows {', '.join(sorted(HARNESS))}"
    return None


def long_model(entry: Entry) -> Iterator[str]:
    """A `model.py` that nobody reads in one go."""
    path = entry.folder / "model.py"
    lines = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    if lines >= MODEL_LINES:
        yield f"model.py has {lines} lines; keep it under {MODEL_LINES}"


# README.md and measured.jsonl


def readme_problems(entry: Entry) -> Iterator[str]:
    """A README that does not open with its paper, or whose table is not what the records give."""
    from reimpl.report import rebuild_readme

    text = (entry.folder / "README.md").read_text(encoding="utf-8")
    title = entry.claims.paper.title
    if _words(title) not in _words(text.partition("\n## ")[0]):
        yield f"README.md does not open with the paper's citation: '{title}'"
    if not (entry.folder / "measured.jsonl").exists():
        return
    lines = zip_longest(text.splitlines(), rebuild_readme(entry).splitlines(), fillvalue="")
    for number, (there, made) in enumerate(lines, start=1):
        if there != made:
            hint = f"`reimpl record {entry.slug}` writes the table"
            yield f"README.md:{number} is not what measured.jsonl gives ({hint}): {there or made}"
            return


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def record_problems(entry: Entry) -> Iterator[str]:
    """Committed records that cannot be read or cannot be evidence."""
    records = read_measured(entry.folder / "measured.jsonl")
    for record in records:
        for problem in _doubts(record, entry):
            yield f"measured.jsonl: {record.variant}, seed {record.seed}: {problem}"
    runs = Counter((r.variant, r.seed, r.part, r.key_parts.get("baseline")) for r in records)
    for (variant, seed, part, _), times in runs.items():
        if times > 1:
            yield f"measured.jsonl: {variant}, seed {seed} ({part}) is there {times} times"


def _doubts(record: Record, entry: Entry) -> Iterator[str]:
    claims, name = entry.claims, record.variant
    if record.part == "baseline":
        name = name.rpartition(" on ")[2]
    if record.paper != entry.slug:
        yield f"it is of paper '{record.paper}'"
    if name not in claims.variants:
        yield "claims.toml has no such variant"
    yield from (
        f"claims.toml has no metric '{metric}'"
        for metric in record.measurements
        if metric not in claims.metrics
    )
    if record.status != "ok":
        yield "the run failed"
    if record.overrides or record.model:
        yield "altered by --set or --model"
    if record.environment.get("git_dirty"):
        yield "made by code that was not committed"
