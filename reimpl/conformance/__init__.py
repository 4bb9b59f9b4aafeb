"""What every paper owes, checked without a test of its author's.

A check yields what is wrong, each time with the culprit's name; nothing means that all is well.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reimpl.conformance.run import (
    caught,
    explained_miscounts,
    failing_exact_claims,
    fit_problems,
    loading_problems,
    missing_parts,
    side_effects,
    trained_variants,
    untrainable_variants,
)
from reimpl.conformance.trials import (
    Trial,
    gradient_problems,
    loss_problems,
    metric_problems,
    step_problems,
    tried,
    untried,
    vectorised_problems,
)
from reimpl.conformance.written import (
    claims_without_a_place,
    forbidden_imports,
    long_model,
    readme_problems,
    record_problems,
    unspoken_variants,
    unused_settings,
    vague_definitions,
)
from reimpl.registry import Entry

Look = Callable[[Entry], Iterable[str]]
"""A check of a paper."""
SHOWN = 3
"""Problems of one kind that are written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str = ""
    """What is wrong, or what is worth knowing."""


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
            found += [_finding(what, entry, partial(tried, look)) for what, look in TRIALS]
    return found


def _finding(what: str, entry: Entry, look: Look) -> Finding:
    problems = caught(partial(look, entry), entry.folder)
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
