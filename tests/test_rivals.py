"""A network of ours beside the paper's: trained and judged like them, and no part of their keys."""

from pathlib import Path

import pytest

from reimpl.conformance.written import forbidden_imports
from reimpl.errors import ClaimsError, PaperError
from reimpl.evidence import current_keys
from reimpl.planning import Request
from reimpl.registry import Entry, entries
from reimpl.report.papers import show_page
from reimpl.reproduction import reproduce
from tests.disturbing import first_thing

CUBIC = '''"""A network of ours."""

from torch import nn

from .. import Logistic


class Cubic(Logistic):
    def __init__(self, inputs):
        super().__init__(inputs)
        self.cube = nn.Linear(inputs, 1, bias=False)

    def forward(self, X):
        return super().forward(X) + self.cube(X**3).flatten()


def model(variant):
    return Cubic(variant["inputs"])
'''
CLAIMS = """
[[variant]]
id = "cubic"
extends = "two-inputs"
says = "cubes of the coordinates as well"
rival = "cubic"

[[claim]]
id = "two-beat-cubic"
kind = "order"
says = "cubes are of no use"
source = "ours"
metric = "test/error"
variants = ["two-inputs", "cubic"]
cost = "minutes"
no_worse = true
margin = 1.0
margin_reason = "any"
"""


@pytest.fixture
def paper(tiny_paper: Path) -> Path:
    (tiny_paper / "rivals").mkdir()
    (tiny_paper / "rivals" / "__init__.py").write_text("")
    (tiny_paper / "rivals" / "cubic.py").write_text(CUBIC)
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text() + CLAIMS)
    return tiny_paper


def only(folder: Path) -> Entry:
    return next(entry for entry in entries([folder]) if entry.slug == folder.name)


def key(folder: Path, variant: str) -> str:
    entry = only(folder)
    return current_keys(entry, entry.claims.variant(variant), "train").key(0)


def test_a_rival_is_trained_as_the_paper_is_and_judged_beside_it(paper: Path) -> None:
    result = reproduce(Request(paper=paper.name, papers=(paper,), seeds=3, wandb="disabled"))
    assert {(r.variant, r.parameters) for r in result.fresh if r.part == "train"} == {
        ("two-inputs", 3),
        ("one-input", 2),
        ("cubic", 5),
    }
    verdicts = {verdict.id: verdict for verdict in result.verdicts}
    assert verdicts["two-beat-cubic"].lane == "reproduced"


def test_of_a_rival_its_own_keys_alone_know(tiny_paper: Path, paper: Path) -> None:
    own, cubic = key(paper, "two-inputs"), key(paper, "cubic")
    rival = paper / "rivals" / "cubic.py"
    rival.write_text(CUBIC.replace("X**3", "X**5"))
    assert key(paper, "two-inputs") == own
    assert key(paper, "cubic") != cubic
    rival.write_text(CUBIC.replace('"""A network of ours."""', '"""Ours."""'))
    assert key(paper, "cubic") == cubic


def test_a_paper_keeps_its_keys_when_a_rival_joins(
    tiny_paper: Path, request: pytest.FixtureRequest
) -> None:
    before = key(tiny_paper, "two-inputs")
    request.getfixturevalue("paper")
    assert key(tiny_paper, "two-inputs") == before


def test_the_papers_own_code_is_in_a_rivals_key(paper: Path) -> None:
    before = key(paper, "cubic")
    first_thing(paper, "unused = 0", of="def loss(model, batch):")
    assert key(paper, "cubic") != before


def test_a_rival_that_is_no_module_is_named_with_the_near_one(paper: Path) -> None:
    claims = paper / "claims.toml"
    claims.write_text(claims.read_text().replace('rival = "cubic"', 'rival = "cubik"'))
    with pytest.raises(ClaimsError, match=r"variant 'cubic': 'rival' is 'cubik', .*'cubic'"):
        only(paper).claims  # noqa: B018


def test_a_rival_without_a_model_is_named(paper: Path) -> None:
    (paper / "rivals" / "cubic.py").write_text(CUBIC.replace("def model(", "def network("))
    with pytest.raises(PaperError, match=r"rivals/cubic\.py has no function 'model'"):
        only(paper).load()


def test_a_rival_that_cannot_be_imported_is_one_line_with_its_place(paper: Path) -> None:
    (paper / "rivals" / "cubic.py").write_text("import no_such_module\n")
    with pytest.raises(PaperError, match=r"No module named 'no_such_module' \(.*cubic\.py:1\)"):
        only(paper).load()


def test_a_fit_of_the_papers_own_has_no_use_for_a_rival(paper: Path) -> None:
    code = paper / "__init__.py"
    code.write_text(code.read_text().replace("    loss=loss,", "    loss=loss, fit=print,"))
    with pytest.raises(PaperError, match="its own 'fit' has no use for a 'rival'"):
        only(paper).load()


@pytest.mark.parametrize(
    ("importing", "line"),
    [
        ("rivals/cubic.py", "from .square import square"),
        ("rivals/cubic.py", "from . import square"),
        ("rivals/cubic.py", "from ..rivals.square import square"),
        ("rivals/cubic.py", "from papers.tiny.rivals import square"),
        ("__init__.py", "from .rivals import cubic"),
        ("__init__.py", "import papers.tiny.rivals.cubic"),
    ],
)
def test_nothing_imports_a_rival_because_keys_would_not_know(
    paper: Path, importing: str, line: str
) -> None:
    assert list(forbidden_imports(only(paper))) == []
    code = paper / importing
    code.write_text(f"{line}\n{code.read_text()}")
    (found,) = forbidden_imports(only(paper))
    assert found.startswith(f"{importing}:1 imports a rival: keys know its file")


def test_show_says_where_a_rival_lies(paper: Path) -> None:
    assert "cubes of the coordinates as well (sec. 1); rivals/cubic.py" in str(
        show_page(only(paper))
    )
