"""What every paper owes, checked without a test of its author's.

A check yields what is wrong, each time with the culprit's name; nothing means that all is well.
Those of an `Entry` look at the paper, those of a `Trial` at one variant that the harness trains.
"""

import ast
import random
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from itertools import count, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from reimpl import registry
from reimpl.claims import Claims, Exact, Variant, variants_of
from reimpl.errors import ReimplError
from reimpl.records import Record, read_measured
from reimpl.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reimpl.context import RunContext
    from reimpl.paper import Batch, Data, Measurements, Paper

Look = Callable[[Entry], Iterable[str]]
"""A check of a paper."""
MODEL_LINES = 150
HARNESS = frozenset({"reimpl.claims", "reimpl.errors", "reimpl.paper"})
"""What a paper may know of it."""
ARGUMENTS, TOOLS = ("argparse", "click", "typer"), ("datasets", "ray", "wandb")
NOT_FOR_PAPERS = frozenset((*ARGUMENTS, *TOOLS, "baselines", "lightning", "pytorch_lightning"))
"""A paper parses no arguments, fetches nothing and calls no tracker or cluster."""
SEEDS = (0, 1)
ROWS = 2000
"""Examples of each split on which a `fit` is tried."""
EPOCHS = 2
"""Steps that a vectorised variant is followed for; the second one shows the optimiser's memory."""
SHOWN = 3
"""Problems of one kind that are written out."""

_MARKS = (
    r"tab(le)?s?|figs?|figures?|sec(tion)?s?|eq(uation)?s?|pp?|pages?|app(endix)?|ch(ap(ter)?)?|lines?"
    r"|(foot)?note|box|alg(orithm)?|listing|theorem|lemma|proposition|corollary|definition|example"
)
_PLACE = re.compile(
    rf"(§|\b(?i:{_MARKS})\b\.?)\s*[(\"'‘“]?[\dA-Z]"
    r"|\b(?i:abstract|appendix|caption|introduction|conclusions?|unconfirmed)\b"
    r"|\b(?i:the \S+ (problem|experiment|theorem|section|table|figure))\b"  # called by its name
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str = ""
    """What is wrong, or what is worth knowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A variant that the harness trains, and a little data to try it on."""

    paper: "Paper"
    """Without `prepare`: the batch is prepared."""
    claims: Claims
    variant: Variant
    batch: "Batch"


def check(entry: Entry) -> list[Finding]:
    """Everything that a paper owes."""
    if entry.broken is not None:
        return [Finding(what="claims.toml reads", ok=False, detail=entry.broken)]
    found = [Finding(what="claims.toml reads", ok=True)]
    found += [_finding(what, entry, look) for what, look in FOLDER_CHECKS.items()]
    found += [_of_file(name, entry) for name in FILE_CHECKS]
    found.append(_note("every variant is spoken of", entry, unspoken_variants))
    loads = _finding("the Python imports", entry, loading_problems)
    return [*found, loads, *(_check_code(entry) if loads.ok else [])]


def _check_code(entry: Entry) -> list[Finding]:
    import torch

    with torch.random.fork_rng(devices=[]):
        found = [_finding(what, entry, look) for what, look in CODE_CHECKS.items()]
        found.append(_note("counts that differ for a stated reason", entry, explained_miscounts))
        if trained_variants(entry) and not list(missing_parts(entry)):
            found.append(_note("example", entry, untried))
            found += [_finding(what, entry, partial(_tried, look)) for what, look in TRIALS]
    return found


def _finding(what: str, entry: Entry, look: Look) -> Finding:
    """What a check says; a paper's own error is a problem like others."""
    try:
        problems = list(look(entry))
    except Exception as error:
        problems = [_said(error, entry.folder)]
    return Finding(what=what, ok=not problems, detail=_some(problems))


def _note(what: str, entry: Entry, look: Look) -> Finding:
    """What is worth knowing and no fault."""
    return replace(_finding(what, entry, look), ok=True)


def _of_file(name: str, entry: Entry) -> Finding:
    if not (entry.folder / name).exists():
        return Finding(what=name, ok=True, detail="none")
    return _finding(name, entry, FILE_CHECKS[name])


def _some(problems: list[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join(problems[:SHOWN] + more)


def _said(error: Exception, folder: Path) -> str:
    """The error in one line, with the line of the paper's own code that it came through last."""
    said = " ".join(str(error).split())
    if isinstance(error, ReimplError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    at = f" ({Path(own[-1].filename).relative_to(folder)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {said}{at}"


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
        try:
            problems = list(_first_step(entry, variant))
        except Exception as error:
            problems = [_said(error, entry.folder)]
        yield from (f"variant '{variant.id}': {problem}" for problem in problems)


def _thinned(data: "Data") -> "Data":
    """At most `ROWS` rows of each split, evenly spaced."""

    def few(batch: "Batch") -> "Batch":
        return tuple(t[:: max(1, -(-len(t) // ROWS))] for t in batch)

    test = None if data.test is None else few(data.test)
    more = {name: few(batch) for name, batch in data.more.items()}
    return replace(data, train=few(data.train), test=test, more=more)


# Variants that the harness trains


def trial(entry: Entry, variant: Variant) -> Trial | None:
    """The variant on the paper's example, or on its data; None where these must be fetched."""
    from reimpl.paper import Seeds

    paper = entry.load()
    if paper.example is not None:
        batch = paper.example(variant)
    elif paper.data is None or entry.claims.sources:
        return None
    else:
        rows = paper.data(variant, {}, Seeds(SEEDS[0])).train
        batch = paper.prepared(rows)
    plain = replace(paper, prepare=None)
    return Trial(paper=plain, claims=entry.claims, variant=variant, batch=batch)


def untried(entry: Entry) -> Iterator[str]:
    """Why variants are not tried, or not on an example."""
    if entry.load().example is None:
        tried = "the data have to be fetched, so no variant is tried"
        yield f"none: {tried}" if entry.claims.sources else "none: variants are tried on the data"


def _tried(look: Callable[[Trial], Iterable[str]], entry: Entry) -> Iterator[str]:
    """A check of every trained variant; each problem with the variant's name."""
    for variant in trained_variants(entry):
        try:
            tried = trial(entry, variant)
            problems = list(look(tried)) if tried else []
        except Exception as error:
            problems = [_said(error, entry.folder)]
        yield from (f"variant '{variant.id}': {problem}" for problem in problems)


def loss_problems(trial: Trial) -> Iterator[str]:
    """The model does not run, or the loss is no finite scalar."""
    loss = _loss(trial, _model(trial))
    if loss.dim():
        yield f"the loss has shape {tuple(loss.shape)} and must be a scalar"
    elif not loss.isfinite():
        yield f"the loss is {loss.item()}"


def gradient_problems(trial: Trial) -> Iterator[str]:
    """Parameters that no gradient reaches, or one that is not finite."""
    model = _model(trial)
    _loss(trial, model).sum().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            yield f"no gradient reaches '{name}'"
        elif not parameter.grad.isfinite().all():
            yield f"the gradient of '{name}' is not finite"


def step_problems(trial: Trial) -> Iterator[str]:
    """One step of the variant's recipe leaves the network as it is, or breaks it."""
    model = _model(trial)
    before = _weights(model)
    _train(trial, model, epochs=1)
    after = _weights(model)
    if all(bool((before[name] == after[name]).all()) for name in before):
        yield "a step of the recipe changes no parameter"
    yield from (
        f"a step leaves '{n}' not finite" for n, w in after.items() if not w.isfinite().all()
    )


def metric_problems(trial: Trial) -> Iterator[str]:
    """Metrics that are not one number for each example, or that claims.toml does not know."""
    import torch

    assert trial.paper.metrics is not None
    model, rows = _model(trial).eval(), len(trial.batch[0])
    with torch.no_grad():
        values = trial.paper.metrics(model, trial.batch)
    known = {name.partition("/")[2] for name in trial.claims.metrics}
    for name, value in values.items():
        if name not in known:
            yield f"metric '{name}' is no split/{name} of claims.toml"
        shape = tuple(getattr(value, "shape", ()))
        if shape != (rows,):
            yield f"metric '{name}' has shape {shape}, not one value per example ({rows},)"
        elif not value.isfinite().all():
            yield f"metric '{name}' is not finite"


def vectorised_problems(trial: Trial) -> Iterator[str]:
    """A seed trained in a batch of seeds goes another way than alone."""
    if not trial.variant.vectorised:
        return
    trial = replace(trial, variant=_shortened(trial.variant))
    for seed, found in zip(SEEDS, _together(trial), strict=True):
        model = _model(trial, seed)
        start = _weights(model)
        _train(trial, model, epochs=EPOCHS)
        for name, alone in _weights(model).items():
            # Rounding differs; so may a weight, by a little of what training changed.
            slack = 1e-6 + 1e-3 * float((alone - start[name]).abs().max())
            if not found[name].allclose(alone, rtol=1e-5, atol=slack):
                apart = float((found[name] - alone).abs().max())
                yield f"in a batch of seeds '{name}' of seed {seed} ends {apart:.2g} away"


def _shortened(variant: Variant) -> Variant:
    assert variant.recipe is not None
    recipe = replace(variant.recipe, epochs=EPOCHS, batch_size="full", evaluate=1)
    return replace(variant, recipe=recipe)


def _together(trial: Trial) -> "list[dict[str, Tensor]]":
    """The weights of each seed after training them as one batch."""
    from reimpl import vectorised

    kept: list[dict[str, Tensor]] = []

    def keep(model: "nn.Module", _data: "Data") -> "Measurements":
        kept.append(_weights(model))
        return {}

    outcomes = vectorised.train(
        replace(trial.paper, inspect=keep),
        trial.variant,
        [_context(trial, seed) for seed in SEEDS],
        metrics=trial.claims.metrics,
    )
    for outcome in outcomes:
        if isinstance(outcome, ReimplError):
            raise outcome
    return kept


def _context(trial: Trial, seed: int) -> "RunContext":
    """A run on the trial's batch, whatever split is asked for."""
    from reimpl.context import RunContext
    from reimpl.paper import Data, Seeds

    splits = {metric.split for metric in trial.claims.metrics.values()} - {"train", "test", "none"}
    data = Data(train=trial.batch, test=trial.batch, more=dict.fromkeys(splits, trial.batch))
    return RunContext(seeds=Seeds(seed), sources={}, data=data)


def _model(trial: Trial, seed: int = SEEDS[0]) -> "nn.Module":
    from reimpl.training import build_model

    return build_model(trial.paper, trial.variant, _context(trial, seed))


def _loss(trial: Trial, model: "nn.Module") -> "Tensor":
    assert trial.paper.loss is not None
    return trial.paper.loss(model, trial.batch)


def _weights(model: "nn.Module") -> "dict[str, Tensor]":
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _train(trial: Trial, model: "nn.Module", *, epochs: int) -> None:
    """The recipe by a plain loop, all rows at once: what the trainers are held against."""
    from reimpl import optimiser

    recipe = trial.variant.recipe
    assert recipe is not None
    parameters = list(model.parameters())
    stepper = optimiser.build(parameters, recipe)
    phases = optimiser.Phases(recipe, stepper)
    for epoch in range(epochs):
        phases.enter(epoch)
        stepper.zero_grad()
        _loss(trial, model).backward()
        if recipe.clip is not None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            optimiser.clip(gradients, recipe.clip, stacked=False)
        stepper.step()
        if phases.shrink:
            optimiser.shrink(parameters, phases.shrink)


FOLDER_CHECKS: Mapping[str, Look] = {
    "every claim cites a place": claims_without_a_place,
    "every metric is defined": vague_definitions,
    "every setting is used": unused_settings,
    "the paper stands alone": forbidden_imports,
    "model.py is short": long_model,
}
FILE_CHECKS: Mapping[str, Look] = {
    "README.md": readme_problems,
    "measured.jsonl": record_problems,
}
CODE_CHECKS: Mapping[str, Look] = {
    "importing does nothing else": side_effects,
    "every exact claim holds": failing_exact_claims,
    "every variant can be trained": untrainable_variants,
    "training has its parts": missing_parts,
    "every fit takes its first step": fit_problems,
}
TRIALS: Sequence[tuple[str, Callable[[Trial], Iterable[str]]]] = (
    ("the model runs and the loss is a finite scalar", loss_problems),
    ("every gradient reaches a parameter", gradient_problems),
    ("a step of every recipe changes the network", step_problems),
    ("metrics are one value per example", metric_problems),
    ("seeds in a batch train as alone", vectorised_problems),
)
