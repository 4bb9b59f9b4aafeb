import copy
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import rtoml
from hypothesis import given, settings
from hypothesis import strategies as st

from reimpl.claims import Claims, Printed, Property, Scalar, Value, Variant, kind_of, variants_of
from reimpl.errors import ClaimsError, RequestError
from reimpl.reading import apply_overrides, load_claims

WHOLE = """
[paper]
title = "A paper"
authors = ["A. Author", "B. Author"]
year = 2001
url = "https://example.org"

[data.digits]
hub = "org/digits"
revision = "abc"
splits = { train = 100, test = 10 }

[metric."test/error"]
unit = "%"
better = "lower"
definition = "wrong ones of the test digits"
items = 10

[metric.epochs]
unit = "epochs"
better = "lower"
definition = "until the test error is 5 %"
reaches = { curve = "test/error", target = 5 }

[metric.norm]
unit = "none"
better = "neither"
definition = "length of the weights"

[setting.hidden]
says = "hidden units"
source = "sec. 2"

[setting.shape]
says = "input and output"
source = "sec. 2"

[[variant]]
id = "plain"
says = "the plain one"
source = "sec. 2"
epochs = 20
batch_size = 10
lr = 0.1
schedule = [{ from = 5, lr = 0.01 }, { from = 10, lr = 0.001, momentum = 0.9 }]
hidden = 3
shape = [2, 1]

[[variant]]
id = "wide"
says = "a wide one"
extends = "plain"
batch_size = "full"
hidden = 30

[[variant]]
id = "wider"
says = "a wider one"
source = "sec. 3"
extends = "wide"
seeds = 7
hidden = 300

[[variant]]
id = "closed"
says = "solved in closed form"
source = "sec. 4"
deterministic = true

[[claim]]
id = "weights"
kind = "exact"
says = "7 weights"
source = "sec. 2"
metric = "norm"
variant = "plain"
published = 7
cost = "instant"

[[claim]]
id = "error"
kind = "value"
says = "0.95 %"
source = "table 1"
metric = "test/error"
variant = "plain"
published = "0.95"
spread = { sd = 0.1, n = 5 }
margin = 0.2
margin_reason = "twice the spread"
cost = "minutes"

[[claim]]
id = "wide-wins"
kind = "order"
says = "wider is better"
source = "fig. 1"
metric = "test/error"
variants = ["wide", "plain"]
cost = "minutes"

[[claim]]
id = "half"
kind = "ratio"
says = "half the error"
source = "fig. 1"
metric = "test/error"
variants = ["wide", "plain"]
published = "0.5"
cost = "minutes"

[[claim]]
id = "quick"
kind = "speed"
says = "5 % after 1,425 epochs"
source = "p. 3"
metric = "epochs"
variant = "plain"
target = "5 %"
published = "1,425"
cost = "minutes"

[[claim]]
id = "falls"
kind = "trend"
says = "falls with the width"
source = "fig. 2"
metric = "test/error"
setting = "hidden"
variants = ["plain", "wide", "wider"]
direction = "falls"
cost = "hours"

[[claim]]
id = "mostly"
kind = "property"
says = "nearly always below 2"
source = "p. 4"
metric = "norm"
variant = "plain"
test = "<= 2.0"
share = 0.9
margin_reason = "the paper says 'nearly always'"
cost = "minutes"

[[deviation]]
id = "loss"
paper_says = "squared error"
we_do = "cross-entropy"
because = "it trains faster"
switch = "wide"

[[gap]]
id = "initialisation"
we_do = "uniform"
because = "usual then"
alternatives = ["normal"]
"""


def read(folder: Path, text: str = WHOLE) -> Claims:
    path = folder / "p2001_x" / "claims.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_claims(path)


@pytest.fixture
def whole(tmp_path: Path) -> Claims:
    return read(tmp_path)


# What is read


def test_a_whole_file_is_read(whole: Claims) -> None:
    assert (whole.paper.authors, whole.sources["digits"].splits["test"]) == (
        ("A. Author", "B. Author"),
        10,
    )
    assert [kind_of(claim) for claim in whole.claims.values()] == [
        "exact",
        "value",
        "order",
        "ratio",
        "speed",
        "trend",
        "property",
    ]


def test_a_claim_knows_its_variants(whole: Claims) -> None:
    found = [variants_of(whole.claim(name)) for name in ("error", "wide-wins")]
    assert found == [("plain",), ("wide", "plain")]


def test_numbers_stay_as_printed(whole: Claims) -> None:
    claim = whole.claim("error")
    assert isinstance(claim, Value)
    assert str(claim.published) == "0.95"


def test_a_metric_is_of_the_split_in_its_name(whole: Claims) -> None:
    assert [metric.split for metric in whole.metrics.values()] == ["test", "none", "none"]


def test_a_whole_number_does_for_a_fraction(whole: Claims) -> None:
    reaches = whole.metrics["epochs"].reaches
    assert reaches is not None
    assert repr(reaches.target) == "5.0"


def test_a_variant_without_recipe_keys_has_no_recipe(whole: Claims) -> None:
    assert whole.variant("closed").recipe is None


def test_extends_takes_over_recipe_settings_and_source(whole: Claims) -> None:
    wide, plain = whole.variant("wide"), whole.variant("plain")
    assert wide.recipe is not None
    assert plain.recipe is not None
    assert (wide.recipe.batch_size, wide.recipe.schedule) == ("full", plain.recipe.schedule)
    assert (wide["hidden"], wide["shape"], wide.source) == (30, [2, 1], "sec. 2")


def test_extends_reaches_through_several_variants(whole: Claims) -> None:
    wider = whole.variant("wider")
    assert wider.recipe is not None
    assert (wider.recipe.batch_size, wider["shape"]) == ("full", [2, 1])
    assert (wider.seeds, wider.source) == (7, "sec. 3")


def test_a_setting_that_a_variant_has_not_is_named(whole: Claims) -> None:
    with pytest.raises(
        RequestError, match=r"'plain' has no setting 'hiden'\. Did you mean 'hidden"
    ):
        whole.variant("plain")["hiden"]


@pytest.mark.parametrize("pick", [Claims.variant, Claims.claim], ids=["variant", "claim"])
def test_an_unknown_name_is_a_request_error(whole: Claims, pick: Callable[..., Any]) -> None:
    with pytest.raises(RequestError, match=r"p2001_x: unknown \w+ 'nothing'\. Known: "):
        pick(whole, "nothing")


def test_what_is_read_cannot_be_changed(whole: Claims) -> None:
    with pytest.raises(FrozenInstanceError):
        whole.variant("plain").seeds = 3  # pyright: ignore[reportAttributeAccessIssue]  (the test)
    with pytest.raises(TypeError):
        whole.variants["new"] = whole.variant("plain")  # pyright: ignore[reportIndexIssue]  (the test)


def test_claims_travel_to_a_worker(whole: Claims) -> None:
    assert pickle.loads(pickle.dumps(whole)) == whole
    assert copy.deepcopy(whole) == whole


# What is refused: each change of the whole file, and what is said about it

MISTAKES: dict[str, tuple[str, str, str]] = {
    # name: (old text, new text, what is said after the file's name)
    "misspelt key": (
        "margin = 0.2",
        "margn = 0.2",
        "claim 'error': unknown key 'margn'. Did you mean 'margin'",
    ),
    "misspelt key in [paper]": ("year = ", "yaer = ", "[paper]: unknown key 'yaer'. Did you mean"),
    "unknown key": (
        'better = "lower"\ndefinition = "wrong',
        'zzz = 1\nbetter = "lower"\ndefinition = "wrong',
        "[metric.test/error]: unknown key 'zzz'. Known: ",
    ),
    "unknown key of a table in a line": (
        "sd = 0.1, n",
        "sdd = 0.1, n",
        "claim 'error': 'spread': unknown key 'sdd'",
    ),
    "name given twice": (
        'hub = "org/digits"',
        'hub = "org/digits"\nname = "x"',
        "[data.digits]: unknown key 'name'. The name is 'digits' already.",
    ),
    "unknown block": ("[paper]", "[papr]", "top level: unknown block 'papr'. Did you mean 'paper'"),
    "no [paper]": (
        WHOLE.partition("[data")[0],
        "",
        "[paper]: missing key 'title'",
    ),
    "missing source": (
        'source = "table 1"\n',
        "",
        "claim 'error': missing key 'source': say which table",
    ),
    "missing source of a variant": (
        'source = "sec. 4"\n',
        "",
        "variant 'closed': missing key 'source'",
    ),
    "empty source": ('"table 1"', '" "', "claim 'error': 'source': is empty"),
    "missing key": ('cost = "hours"\n', "", "claim 'falls': missing key 'cost'"),
    "missing id": ('id = "error"\n', "", "claim '?': missing key 'id'"),
    "missing kind": ('kind = "value"\n', "", "claim 'error': missing key 'kind'. Known: exact"),
    "unknown kind": (
        'kind = "value"',
        'kind = "valeu"',
        "claim 'error': unknown kind 'valeu'. Did you mean 'value'",
    ),
    "kind of a wrong type": ('kind = "value"', "kind = []", "claim 'error': unknown kind '[]'"),
    "unknown cost": (
        'cost = "hours"',
        'cost = "hour"',
        "claim 'falls': 'cost': is 'hour'. Did you mean 'hours'",
    ),
    "key of another kind": (
        'test = "<= 2.0"',
        'test = "<= 2.0"\ntarget = "2"',
        "claim 'mostly': unknown key 'target'",
    ),
    "fraction not in quotes": (
        'published = "0.95"',
        "published = 0.95",
        "claim 'error': 'published': write \"0.95\" in quotes, digit for digit",
    ),
    "published is no number": (
        'published = "0.95"',
        'published = "0.95 %"',
        "claim 'error': 'published': must be a printed number",
    ),
    "published with a decimal comma": (
        'published = "0.95"',
        'published = "0,95"',
        "claim 'error': 'published': must be a printed number",
    ),
    "published is a truth value": (
        "published = 7",
        "published = true",
        "claim 'weights': 'published': must be a printed number",
    ),
    "text for a number": (
        "year = 2001",
        'year = "2001"',
        "[paper]: 'year': must be a whole number, is '2001'",
    ),
    "fraction for a whole number": (
        "epochs = 20",
        "epochs = 20.5",
        "variant 'plain': 'recipe': 'epochs': must be a whole number, is 20.5",
    ),
    "truth value for a number": (
        "lr = 0.1",
        "lr = true",
        "variant 'plain': 'recipe': 'lr': must be a number, is True",
    ),
    "number for a truth value": (
        "deterministic = true",
        "deterministic = 1",
        "variant 'closed': 'deterministic': must be true or false, is 1",
    ),
    "no finite number": (
        "margin = 0.2",
        "margin = nan",
        "claim 'error': 'margin': must be a finite number of at most 1e+150, is nan",
    ),
    "text for a list": (
        '["A. Author", "B. Author"]',
        '"A. Author"',
        "[paper]: 'authors': must be a list, is 'A. Author'",
    ),
    "table for text": ('title = "A paper"', "title = {}", "[paper]: 'title': must be text, is {}"),
    "number for a table": (
        "spread = { sd = 0.1, n = 5 }",
        "spread = 0.1",
        "claim 'error': 'spread': must be a table, is 0.1",
    ),
    "text for a table of numbers": (
        "splits = { train = 100, test = 10 }",
        "splits = 110",
        "[data.digits]: 'splits': must be a table, is 110",
    ),
    "batch of a wrong word": (
        'batch_size = "full"',
        'batch_size = "ful"',
        "variant 'wide': 'recipe': 'batch_size': is 'ful'. Did you mean 'full'",
    ),
    "too small": ("seeds = 7", "seeds = 0", "variant 'wider': 'seeds' must be at least 1, is 0"),
    "a spread over one run": (
        "sd = 0.1, n = 5",
        "sd = 0.1, n = 1",
        "claim 'error': 'spread': 'n' must be at least 2, is 1",
    ),
    "unknown metric": (
        'metric = "epochs"',
        'metric = "epoch"',
        "claim 'quick': unknown metric 'epoch'. Did you mean 'epochs'",
    ),
    "unknown variant": (
        'variants = ["plain", "wide", "wider"]',
        'variants = ["plain", "wide", "widest"]',
        "claim 'falls': unknown variant 'widest'. Did you mean 'wide",
    ),
    "unknown setting of a trend": (
        'setting = "hidden"',
        'setting = "hiden"',
        "claim 'falls': variant 'plain' does not fix the setting 'hiden'. Did you mean 'hidden'",
    ),
    "trend over something else than numbers": (
        'setting = "hidden"',
        'setting = "shape"',
        "claim 'falls': setting 'shape' of variant 'plain' must be a number for a trend",
    ),
    "unknown curve": (
        'curve = "test/error"',
        'curve = "tests/error"',
        "[metric.epochs]: unknown curve 'tests/error'. Did you mean 'test/error'",
    ),
    "unknown switch": (
        'switch = "wide"',
        'switch = "wid"',
        "deviation 'loss': unknown variant 'wid'. Did you mean 'wide'",
    ),
    "undeclared setting": (
        "hidden = 30\n",
        "depth = 3\n",
        "variant 'wide': unknown key 'depth'. A setting of this paper is declared as "
        "[setting.depth] first.",
    ),
    "setting that is a date": (
        "hidden = 30\n",
        "hidden = 2001-01-01\n",
        "variant 'wide': 'hidden': must be text, a number or true or false",
    ),
    "setting with a NaN in it": (
        "shape = [2, 1]",
        "shape = [2, nan]",
        "variant 'plain': 'shape': must be a finite number",
    ),
    "extends what is not there": (
        'extends = "wide"',
        'extends = "wade"',
        "variant 'wider': extends 'wade', which is no variant above it. Did you mean 'wide'",
    ),
    "extends itself": (
        'extends = "wide"',
        'extends = "wider"',
        "variant 'wider': extends 'wider', which is no variant above it",
    ),
    "duplicate claim": ('id = "half"', 'id = "error"', "claim 'error': appears twice"),
    "duplicate variant": ('id = "wider"', 'id = "plain"', "variant 'plain': appears twice"),
    "duplicate gap": (
        "[[gap]]",
        "[[gap]]\nid='initialisation'\nwe_do='a'\nbecause='b'\nalternatives=[]\n[[gap]]",
        "gap 'initialisation': appears twice",
    ),
    "schedule with an unknown key": (
        "{ from = 5, lr = 0.01 }",
        "{ from = 5, lrr = 0.01 }",
        "variant 'plain': schedule: unknown key 'lrr'. Did you mean 'lr'",
    ),
    "schedule without an epoch": (
        "{ from = 5, lr = 0.01 }",
        "{ lr = 0.01 }",
        "variant 'plain': schedule: each phase needs 'from'",
    ),
    "schedule out of order": (
        "from = 10",
        "from = 5",
        "variant 'plain': schedule: each phase needs 'from', an epoch later",
    ),
    "schedule with a negative value": (
        "lr = 0.01 }",
        "lr = -0.01 }",
        "variant 'plain': schedule: no value may be negative",
    ),
    "schedule that is no list": (
        "schedule = [{ from = 5, lr = 0.01 }, { from = 10, lr = 0.001, momentum = 0.9 }]",
        "schedule = 3",
        "variant 'plain': 'recipe': 'schedule': must be a list, is 3",
    ),
    "one beta": (
        "lr = 0.1\n",
        "lr = 0.1\nbetas = [0.9]\n",
        "variant 'plain': 'betas' must be two numbers in [0, 1), is (0.9,)",
    ),
    "half a recipe": ("epochs = 20\n", "", "variant 'plain': 'recipe': missing key 'epochs'"),
    "margin without reason": (
        'margin_reason = "twice the spread"\n',
        "",
        "claim 'error': a margin needs a 'margin_reason'",
    ),
    "margin of nothing": ("margin = 0.2", "margin = 0", "claim 'error': margin must be positive"),
    "margin of a trend": (
        'direction = "falls"\n',
        'direction = "falls"\nmargin = 1\nmargin_reason = "a little"\n',
        "claim 'falls': a trend has no margin",
    ),
    "margin of a property": (
        "share = 0.9\n",
        "share = 0.9\nmargin = 1\n",
        "claim 'mostly': a property has no margin",
    ),
    "a time that is better when it is longer": (
        'unit = "epochs"\nbetter = "lower"',
        'unit = "epochs"\nbetter = "higher"',
        "claim 'quick': metric 'epochs' says that higher is better: a `speed` is a time",
    ),
    "best of several, and neither way is better": (
        'metric = "test/error"\nvariant = "plain"\npublished = "0.95"',
        'metric = "norm"\nbest_of = 5\nvariant = "plain"\npublished = "0.95"',
        "claim 'error': 'best_of' needs a metric that says which way is better",
    ),
    "items of what is no share": (
        'unit = "%"',
        'unit = "percent"',
        "[metric.test/error]: 'items' needs the unit '%' or 'share', is 'percent'",
    ),
    "figure beyond all numbers": (
        'published = "1,425"',
        f'published = "{"9" * 400}"',
        "claim 'quick': 'published': must be a number of at most 1e+150",
    ),
    "spread beyond all numbers": (
        "sd = 0.1, n = 5",
        "sd = 1e300, n = 5",
        "claim 'error': 'spread': 'sd': must be a finite number of at most 1e+150",
    ),
    "no_worse without margin": (
        'variants = ["wide", "plain"]\ncost',
        'variants = ["wide", "plain"]\nno_worse = true\ncost',
        "claim 'wide-wins': 'no_worse = true' and 'margin' go together",
    ),
    "order of one": (
        'variants = ["wide", "plain"]\ncost',
        'variants = ["wide"]\ncost',
        "claim 'wide-wins': 'variants' needs at least 2",
    ),
    "order against itself": (
        'variants = ["wide", "plain"]\ncost',
        'variants = ["wide", "wide"]\ncost',
        "claim 'wide-wins': 'variants' names one twice",
    ),
    "order where no way is better": (
        'metric = "test/error"\nvariants = ["wide", "plain"]\ncost',
        'metric = "norm"\nvariants = ["wide", "plain"]\ncost',
        "claim 'wide-wins': metric 'norm' says that neither way is better",
    ),
    "ratio of three": (
        'variants = ["wide", "plain"]\npublished',
        'variants = ["wide", "plain", "wider"]\npublished',
        "claim 'half': 'variants' needs exactly 2",
    ),
    "trend over two": (
        'variants = ["plain", "wide", "wider"]',
        'variants = ["plain", "wide"]',
        "claim 'falls': 'variants' needs at least 3",
    ),
    "property with an odd test": (
        'test = "<= 2.0"',
        'test = "<= two"',
        "claim 'mostly': test must be 'holds' or a comparison such as '>= 0.99', is '<= two'",
    ),
    "share above one": (
        "share = 0.9\n",
        "share = 90\n",
        "claim 'mostly': share must lie in (0, 1], is 90",
    ),
    "share without reason": (
        "margin_reason = \"the paper says 'nearly always'\"\n",
        "",
        "claim 'mostly': a share needs a 'margin_reason'",
    ),
    "one variant instead of a list": (
        "[[gap]]",
        "[gap]",
        "[gap]: must be written [[gap]], once for each",
    ),
    "metric without a name": (
        "[setting.hidden]",
        "[setting]",
        "[setting]: must be written [setting.NAME]",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_file_and_block(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert WHOLE.count(old) >= 1
    with pytest.raises(ClaimsError) as caught:
        read(tmp_path, WHOLE.replace(old, new, 1))
    line = str(caught.value)
    assert line.startswith(f"p2001_x/claims.toml: {said}")
    assert "\n" not in line


@pytest.mark.parametrize(
    "text", ["[paper", "a = 1\na = 2", "a = " + "[" * 10_000], ids=["cut", "twice", "deep"]
)
def test_what_is_no_toml_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClaimsError, match=r"^[^\n]*claims\.toml: not valid TOML: [^\n]+$"):
        read(tmp_path, text)


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    (tmp_path / "claims.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ClaimsError, match="not valid TOML"):
        load_claims(tmp_path / "claims.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaimsError, match=r"claims\.toml: cannot be read: No such file"):
        load_claims(tmp_path / "claims.toml")


def test_a_file_of_another_name_is_named_by_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[papr]\n")
    with pytest.raises(ClaimsError, match=r"^mine\.toml: top level"):
        load_claims(tmp_path / "mine.toml")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from paths(inner, (*path, key))


TABLES = rtoml.loads(WHOLE)
ODD = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(path=st.sampled_from([*paths(TABLES)]), odd=ODD)
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_is_read_or_refused_in_one_line(path: tuple[Any, ...], odd: Any) -> None:
    tables = copy.deepcopy(TABLES)
    inner = tables
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    said = "test_claims.py: read"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtoml, "loads", lambda _: tables)
        try:
            load_claims(Path(__file__))
        except ClaimsError as error:
            said = str(error)
    assert re.fullmatch(r"test_claims\.py: [^\n]+", said)


# Printed numbers


@pytest.mark.parametrize(
    ("text", "value", "half_digit"),
    [
        ("0.95", 0.95, 0.005),
        ("0.950", 0.95, 0.0005),
        ("60,000", 60_000.0, 0.5),
        ("340_908", 340_908.0, 0.5),
        ("1425", 1425.0, 0.5),
        ("-1.5", -1.5, 0.05),
        (".5", 0.5, 0.05),
        ("1.5e-3", 0.0015, 0.00005),
        ("2e3", 2000.0, 500.0),
    ],
)
def test_a_printed_number_knows_its_value_and_half_a_digit(
    text: str, value: float, half_digit: float
) -> None:
    number = Printed(text)
    assert (number.value, number.half_digit, str(number)) == (value, half_digit, text)


# Overrides


def overridden(claims: Claims, name: str = "plain", **overrides: Scalar) -> Variant:
    return apply_overrides(claims, claims.variant(name), overrides)


def test_an_override_changes_the_recipe_and_nothing_else(whole: Claims) -> None:
    changed = overridden(whole, lr=1)
    assert changed.recipe is not None
    assert changed.recipe.lr == 1.0
    assert overridden(whole, lr=0.1) == whole.variant("plain")
    assert changed != whole.variant("plain")


def test_an_override_changes_a_setting(whole: Claims) -> None:
    assert overridden(whole, hidden=5)["hidden"] == 5
    assert whole.variant("plain")["hidden"] == 3


def test_no_overrides_change_nothing(whole: Claims) -> None:
    for name, variant in whole.variants.items():
        assert overridden(whole, name) == variant


def test_a_batch_can_become_the_full_one(whole: Claims) -> None:
    changed = overridden(whole, batch_size="full")
    assert changed.recipe is not None
    assert changed.recipe.batch_size == "full"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("plain", {"hiden": 3}, "--set: variant 'plain' has no key 'hiden'. Did you mean 'hidden'"),
        ("plain", {"seeds": 3}, "--set: variant 'plain' has no key 'seeds'"),
        ("closed", {"lr": 0.1}, "--set: variant 'closed' has no key 'lr'"),
        ("plain", {"lr": "low"}, "--set on variant 'plain': 'lr': must be a number, is 'low'"),
        ("plain", {"epochs": 0}, "--set on variant 'plain': 'epochs' must be at least 1, is 0"),
        ("plain", {"lr": float("nan")}, "--set on variant 'plain': 'lr': must be a finite number"),
        ("plain", {"schedule": 3}, "--set on variant 'plain': 'schedule': must be a list"),
        ("plain", {"hidden": "x"}, "--set on variant 'plain': 'hidden' is 3 and cannot become 'x'"),
        ("plain", {"shape": 3}, "--set on variant 'plain': 'shape' is [2, 1] and cannot become 3"),
        ("plain", {"hidden": float("inf")}, "--set on variant 'plain': 'hidden': must be a finite"),
    ],
)
def test_an_override_that_cannot_be_is_a_request_error(
    whole: Claims, name: str, overrides: dict[str, Scalar], said: str
) -> None:
    with pytest.raises(RequestError) as caught:
        overridden(whole, name, **overrides)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("test", ["holds", ">= 0.99", "<=2", "> -1", "< 1e-3"])
def test_a_property_takes_these_tests(tmp_path: Path, test: str) -> None:
    claim = read(tmp_path, WHOLE.replace("<= 2.0", test)).claim("mostly")
    assert isinstance(claim, Property)
    assert claim.test == test
