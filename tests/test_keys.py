"""What leaves the key of a run as it is, and what changes it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reimpl.claims import Claims
from reimpl.errors import RecordError
from reimpl.keys import changed, code_digest, key, key_parts
from reimpl.reading import load_claims

CLAIMS = """
[paper]
title = "A paper"
authors = ["A. Author"]
year = 2001
url = "https://example.org"

[metric."test/error"]
unit = "%"
better = "lower"
definition = "wrong ones"
score = "error"

[metric.epochs]
unit = "epochs"
better = "lower"
definition = "until 5 %"
reaches = { curve = "test/error", target = 5.0 }

[setting.hidden]
says = "hidden units"
source = "sec. 2"

[[variant]]
id = "plain"
says = "the plain one"
source = "sec. 2"
epochs = 20
batch_size = 10
lr = 0.1
schedule = [{ from = 5, lr = 0.01 }]
hidden = 3

[[variant]]
id = "wide"
says = "the wide one"
source = "sec. 3"
extends = "plain"
hidden = 30

[[claim]]
id = "error"
kind = "value"
says = "0.95 %"
source = "table 1"
metric = "test/error"
variant = "plain"
published = "0.95"
cost = "minutes"
"""
MODEL = '''"""A model."""

# A remark.
class Net:
    """Its equation."""

    width = 3
    """Units."""

    def forward(self, x):
        """Twice x."""
        return 2 * x
'''


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    folder = tmp_path / "p2001_x"
    folder.mkdir()
    (folder / "claims.toml").write_text(CLAIMS)
    (folder / "model.py").write_text(MODEL)
    (folder / "README.md").write_text("Read me")
    return folder


def parts(folder: Path, *, variant: str = "plain", **changes: Any) -> dict[str, str]:
    claims: Claims = load_claims(folder / "claims.toml")
    given: dict[str, Any] = {
        "claims": claims,
        "variant": claims.variant(variant),
        "seed": 0,
        "part": "train",
        "overrides": {},
        "code": code_digest(folder),
        "model_file": None,
        "data": "abc",
    }
    return key_parts(**(given | changes))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


INCIDENTAL: dict[str, Callable[[Path], Any]] = {
    "readme": lambda f: (f / "README.md").write_text("Read me again"),
    "published": lambda f: edit(f / "claims.toml", '"0.95"', '"0.90"'),
    "says": lambda f: edit(f / "claims.toml", "the plain one", "the first one"),
    "source": lambda f: edit(f / "claims.toml", "sec. 2", "sec. 4"),
    "another variant": lambda f: edit(f / "claims.toml", "hidden = 30", "hidden = 40"),
    "definition": lambda f: edit(f / "claims.toml", "wrong ones", "misses"),
    "a number written otherwise": lambda f: edit(f / "claims.toml", "lr = 0.1\n", "lr = 1e-1\n"),
    "docstring": lambda f: edit(f / "model.py", "Its equation.", "Another text."),
    "comment": lambda f: edit(f / "model.py", "# A remark.", ""),
    "layout": lambda f: edit(f / "model.py", "2 * x", "(2\n*x)"),
    "field text": lambda f: edit(f / "model.py", '    """Units."""\n', ""),
}


@pytest.mark.parametrize("change", INCIDENTAL.values(), ids=INCIDENTAL)
def test_what_is_incidental_leaves_the_key(paper: Path, change: Callable[[Path], Any]) -> None:
    before = parts(paper)
    change(paper)
    assert changed(before, parts(paper)) == []


def test_the_place_of_the_paper_leaves_the_key(paper: Path, tmp_path: Path) -> None:
    before = key(parts(paper))
    assert key(parts(paper.rename(tmp_path / "elsewhere"))) == before


def test_the_order_of_variants_leaves_the_key(paper: Path) -> None:
    before = parts(paper, variant="plain")
    head, plain, wide = CLAIMS.partition("[[claim]]")[0].split("[[variant]]")
    own = wide.replace('extends = "plain"', "epochs = 1\nbatch_size = 1\nlr = 1")
    (paper / "claims.toml").write_text("[[variant]]".join([head, own, plain]))
    assert parts(paper, variant="plain") == before


def test_a_key_of_the_recipe_that_came_later_leaves_earlier_keys_alone(paper: Path) -> None:
    before = parts(paper)
    assert before["variant"] == "240bdc265e64e62a"  # as it was before there was a precision
    edit(paper / "claims.toml", "lr = 0.1\n", 'lr = 0.1\nprecision = "32"\n')
    assert parts(paper) == before
    edit(paper / "claims.toml", 'precision = "32"', 'precision = "bf16-mixed"')
    assert changed(before, parts(paper)) == ["the variant's recipe or settings changed"]


DECISIVE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code": (lambda f: edit(f / "model.py", "2 * x", "3 * x"), "the paper's code changed"),
    "new file": (lambda f: (f / "train.py").write_text("x = 1"), "the paper's code changed"),
    "no Python": (lambda f: (f / "model.py").write_text("def ("), "the paper's code changed"),
    "recipe": (
        lambda f: edit(f / "claims.toml", "lr = 0.1\n", "lr = 0.2\n"),
        "the variant's recipe or settings changed",
    ),
    "schedule": (
        lambda f: edit(f / "claims.toml", "from = 5", "from = 6"),
        "the variant's recipe or settings changed",
    ),
    "setting": (
        lambda f: edit(f / "claims.toml", "hidden = 3\n", "hidden = 4\n"),
        "the variant's recipe or settings changed",
    ),
    "target": (
        lambda f: edit(f / "claims.toml", "target = 5.0", "target = 4.0"),
        "how a metric of claims.toml is reached or scored changed",
    ),
}


@pytest.mark.parametrize(("change", "said"), DECISIVE.values(), ids=DECISIVE)
def test_what_decides_the_outcome_changes_the_key_and_is_named(
    paper: Path, change: Callable[[Path], Any], said: str
) -> None:
    before = parts(paper)
    change(paper)
    after = parts(paper)
    assert changed(before, after) == [said]
    assert key(before) != key(after)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed changed: 0 → 1"),
        ({"part": "counts"}, "part changed: train → counts"),
        ({"overrides": {"lr": 0.2}}, 'overrides changed: {} → {"lr":0.2}'),
        ({"data": "def"}, "the data changed"),
    ],
)
def test_what_the_caller_changes_is_named(
    paper: Path, change: Mapping[str, Any], said: str
) -> None:
    assert changed(parts(paper), parts(paper, **change)) == [said]


def test_another_model_is_named(paper: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MODEL)
    before = parts(paper, model_file=mine)
    edit(mine, "width = 3", "width = 4")
    assert changed(before, parts(paper, model_file=mine)) == ["the code of the model changed"]


def test_a_baseline_depends_on_how_it_is_scored(paper: Path) -> None:
    before = parts(paper, part="baseline")
    edit(paper / "claims.toml", 'score = "error"', 'score = "accuracy"')
    assert changed(before, parts(paper, part="baseline")) != []
    assert changed(parts(paper), parts(paper)) == []


def test_other_versions_are_named() -> None:
    old, new = {"torch": "2.12.0", "numpy": "2.1"}, {"torch": "2.13.0", "numpy": "2.1"}
    assert changed(old, new) == ["torch changed: 2.12.0 → 2.13.0"]


def test_a_part_that_is_new_is_named() -> None:
    assert changed({}, {"seed": "3"}) == ["seed changed: none → 3"]


def test_a_model_file_that_is_not_there_is_a_record_error(paper: Path) -> None:
    with pytest.raises(RecordError, match=r"gone\.py: cannot be read"):
        parts(paper, model_file=paper / "gone.py")
