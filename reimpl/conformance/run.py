"""What a paper's Python does when it is imported, counts and takes the first step of a `fit`."""

import random
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from reimpl.claims import Claims, Exact, Variant, variants_of
from reimpl.errors import ReimplError
from reimpl.registry import Entry

if TYPE_CHECKING:
    from reimpl.paper import Batch, Data, Measurements

ROWS = 2000
"""Examples of each split on which a `fit` is tried."""


def caught(look: Callable[[], Iterable[str]], folder: Path) -> list[str]:
    """The problems that a check finds; a paper's own error is one like others."""
    try:
        return list(look())
    except Exception as error:
        return [_said(error, folder)]


def _said(error: Exception, folder: Path) -> str:
    """The error in one line, with the line of the paper's own code that it came through last."""
    said = " ".join(str(error).split())
    if isinstance(error, ReimplError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    at = f" ({Path(own[-1].filename).relative_to(folder)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {said}{at}"


# The code, imported


def loading_problems(entry: Entry) -> Iterator[str]:
    """The paper does not import, or not under the name of its folder.

    Raises:
        PaperError: it does not import, or holds no `Paper` of this slug.
    """
    slug = entry.load().slug
    if entry.folder.name != slug:
        yield f"PAPER says slug '{slug}' and the folder is called '{entry.folder.name}'"


def side_effects(entry: Entry) -> Iterator[str]:
    """What importing the paper does beside giving a value."""
    entry.load()  # what other packages do when they are first imported is not the paper's doing
    with TemporaryDirectory() as empty, chdir(empty), redirect_stdout(StringIO()) as said:
        before = _global_state()
        _import_anew(entry.folder)
        after = _global_state()
        written = sorted(path.name for path in Path().iterdir())
    yield from (f"importing writes {name}" for name in written)
    yield from (f"importing changes {name}" for name in before if before[name] != after[name])
    if said.getvalue():
        yield f"importing prints {said.getvalue().strip()!r}"


def _global_state() -> dict[str, Any]:
    import numpy as np
    import torch

    return {
        "torch's random numbers": torch.get_rng_state().tolist(),
        "NumPy's random numbers": str(np.random.get_state(legacy=False)),
        "Python's random numbers": random.getstate(),
        "torch's default type": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
    }


_fresh = count()


def _import_anew(folder: Path) -> None:
    """Run the paper's Python once more, under a name that nobody else uses."""
    name = f"_conformance_{next(_fresh)}"
    spec = spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    finally:
        for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[loaded]


def failing_exact_claims(entry: Entry) -> Iterator[str]:
    """Exact claims whose count is another, and nothing is said of it; no training, no data."""
    for claim, problem in _miscounts(entry):
        if not _explained(claim, entry.claims):
            yield f"claim '{claim.id}': {problem}"


def explained_miscounts(entry: Entry) -> Iterator[str]:
    """The same where the figure may be misquoted, or a gap or a deviation says why it differs."""
    for claim, problem in _miscounts(entry):
        if _explained(claim, entry.claims):
            yield f"claim '{claim.id}': {problem}"


def _explained(claim: Exact, claims: Claims) -> bool:
    cited = any(f"'{known.id}'" in claim.source for known in (*claims.deviations, *claims.gaps))
    return cited or "unconfirmed" in claim.source.casefold()


def _miscounts(entry: Entry) -> Iterator[tuple[Exact, str]]:
    counts, counted = entry.load().counts, {}
    for claim in entry.claims.claims.values():
        if not isinstance(claim, Exact) or claim.needs:
            continue
        if counts is None:
            yield claim, "the paper has no `counts`"
            continue
        if claim.variant not in counted:
            counted[claim.variant] = counts(entry.claims.variants[claim.variant])
        problem = _miscounted(claim, entry.claims, counted[claim.variant])
        if problem is not None:
            yield claim, problem


def _miscounted(claim: Exact, claims: Claims, counted: "Measurements") -> str | None:
    from reimpl.judging import judge

    if claim.metric not in counted:
        return f"`counts` gives no '{claim.metric}' for variant '{claim.variant}'"
    value = counted[claim.metric]
    verdict = judge(claim, claims.metrics[claim.metric], {claim.variant: {0: value}})
    if verdict.lane == "reproduced":
        return None
    return f"published {claim.published}, counted {value} of '{claim.metric}'"


def trained_variants(entry: Entry) -> list[Variant]:
    """Those that the harness trains."""
    paper = entry.load()
    variants = entry.claims.variants.values()
    return [v for v in variants if v.recipe is not None and paper.fit_of(v) is None]


def untrainable_variants(entry: Entry) -> Iterator[str]:
    """Variants that no recipe and no `fit` trains, and a `fit` for no variant."""
    paper, claims = entry.load(), entry.claims
    if isinstance(paper.fit, Mapping):
        unknown = (v for v in paper.fit if v not in claims.variants)
        yield from (f"`fit` has '{v}', no variant of claims.toml" for v in unknown)
    never = _never_run(claims)
    for variant in claims.variants.values():
        if variant.recipe is None and paper.fit_of(variant) is None and variant.id not in never:
            yield f"variant '{variant.id}' has no recipe (epochs, batch_size, lr) and no `fit`"


def _never_run(claims: Claims) -> set[str]:
    """Variants that are only counted, or whose claims need what is not here."""
    spoken, run = set(), set()
    for claim in claims.claims.values():
        spoken |= set(variants_of(claim))
        run |= set() if isinstance(claim, Exact) or claim.needs else set(variants_of(claim))
    return spoken - run


def missing_parts(entry: Entry) -> Iterator[str]:
    """What training needs and the paper does not give."""
    if trained_variants(entry):
        paper = entry.load()
        parts = ("model", "data", "loss", "metrics")
        yield from (f"the paper has no `{part}`" for part in parts if getattr(paper, part) is None)


# Variants that train in a way of their own


def fitted_variants(entry: Entry) -> list[Variant]:
    """Those whose paper trains them, with data that are at hand."""
    from reimpl import data

    claims, paper = entry.claims, entry.load()
    never = _never_run(claims)
    absent = {name for name, source in claims.sources.items() if data.missing(source)}
    return [
        variant
        for variant in claims.variants.values()
        if variant.id not in never
        and paper.fit_of(variant) is not None
        and absent.isdisjoint(claims.sources_of(variant))
    ]


def _first_step(entry: Entry, variant: Variant) -> Iterator[str]:
    """A `fit` that breaks on a little data, or measures before it says how far it is."""
    from reimpl import data
    from reimpl.context import Enough, RunContext
    from reimpl.context import Trial as Look
    from reimpl.paper import Data, Seeds

    paper, sources = entry.load(), data.load(entry.claims.sources)
    fit, seeds = paper.fit_of(variant), Seeds.of_run(0, variant.folds)
    assert fit is not None
    rows = paper.data(variant, sources, seeds) if paper.data else Data(train=())
    look = Look(seconds=0.0)
    context = RunContext(seeds=seeds, sources=sources, data=_thinned(rows), trial=look)
    try:
        fit(variant, context)
    except Enough:
        return
    if look.began is None:
        yield "its `fit` never calls `context.progress`"


def fit_problems(entry: Entry) -> Iterator[str]:
    """The first step of every `fit`; each problem with the variant's name."""
    for variant in fitted_variants(entry):
        problems = caught(partial(_first_step, entry, variant), entry.folder)
        yield from (f"variant '{variant.id}': {problem}" for problem in problems)


def _thinned(data: "Data") -> "Data":
    """At most `ROWS` rows of each split, evenly spaced."""

    def few(batch: "Batch") -> "Batch":
        return tuple(t[:: max(1, -(-len(t) // ROWS))] for t in batch)

    test = None if data.test is None else few(data.test)
    more = {name: few(batch) for name, batch in data.more.items()}
    return replace(data, train=few(data.train), test=test, more=more)
