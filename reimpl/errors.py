"""Everything that goes wrong on purpose, as one tree.

    ReimplError            one line for the user; the command ends with status 2
    ├── ClaimsError        claims.toml says something it must not
    ├── PaperError         a paper is unknown, ambiguous, or cannot be imported
    ├── RequestError       a variant, claim, key or option that does not exist
    ├── DataError          data are missing, or are not what the paper used
    ├── RecordError        a record cannot be read or written
    ├── TrackingError      Weights & Biases was asked for something it cannot do here
    └── RunError           a run failed; recorded as `error`, the other runs go on
        └── DivergenceError    a loss or metric became NaN or infinite

Everything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable


class ReimplError(Exception):
    """A mistake with one clear line: where, what, and what to do."""


class ClaimsError(ReimplError):
    """`claims.toml` says something it must not."""


class PaperError(ReimplError):
    """A paper is unknown, ambiguous, or cannot be imported."""


class RequestError(ReimplError):
    """A variant, claim, key or option that does not exist."""


class DataError(ReimplError):
    """Data are missing, or are not what the paper used."""


class RecordError(ReimplError):
    """A record cannot be read or written."""


class TrackingError(ReimplError):
    """Weights & Biases was asked for something it cannot do here."""


class RunError(ReimplError):
    """A run failed; it is recorded as `error` and the other runs go on."""


class DivergenceError(RunError):
    """A loss or a metric became NaN or infinite."""


def near(name: str, known: Iterable[str]) -> str:
    """A closing sentence that helps with a misspelt name.

    >>> near("margn", ["margin", "metric"])
    "Did you mean 'margin'?"
    >>> near("zzz", ["margin", "metric"])
    'Known: margin, metric.'
    """
    from difflib import get_close_matches  # late: most commands make no mistake

    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(f"'{match}'" for match in close) + "?"
    return f"Known: {', '.join(names)}." if names else "None are known."
