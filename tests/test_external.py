import json
import math
from pathlib import Path
from typing import Any

import pytest

from reimpl.claims import Claims
from reimpl.errors import RequestError
from reimpl.external import Measurement, judge_external, read_measurements
from reimpl.reading import load_claims

CLAIMS = """
[paper]
title = "On wheels"
authors = ["A. Author"]
year = 1999
url = "https://example.org"

[metric."test/error"]
unit = "%"
better = "lower"
definition = "wrong answers on the test set"

[metric.sweeps]
unit = "sweeps"
better = "lower"
definition = "sweeps until all is right"

[[variant]]
id = "round"
says = "with round wheels"
source = "Table 1"

[[variant]]
id = "square"
says = "with square wheels"
source = "Table 1"
deterministic = true

[[claim]]
id = "error"
kind = "value"
says = "10 % are wrong"
source = "Table 1"
metric = "test/error"
variant = "round"
published = "10.0"
cost = "instant"

[[claim]]
id = "better"
kind = "order"
says = "round beats square"
source = "Table 1"
metric = "test/error"
variants = ["round", "square"]
cost = "instant"

[[claim]]
id = "fast"
kind = "speed"
says = "20 sweeps"
source = "Table 2"
metric = "sweeps"
variant = "round"
published = "20"
target = "all right"
cost = "instant"
"""
HEADER = "variant,seed,metric,value\n"


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS, encoding="utf-8")
    return load_claims(path)


def written(folder: Path, text: str, name: str = "numbers.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def measured(**more: Any) -> Measurement:
    return Measurement(**{"variant": "round", "seed": 0, "metric": "sweeps", "value": 1.0, **more})


def test_a_csv_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "round,0,test/error,9.5\nround,1,sweeps,inf\n")
    assert read_measurements(path) == [
        measured(metric="test/error", value=9.5),
        measured(seed=1, value=math.inf),
    ]


def test_columns_may_come_in_any_order_with_spaces_and_blank_lines(tmp_path: Path) -> None:
    text = "\ufeffvalue, metric, seed, variant\n\n 1.0, sweeps, 0, round\n\n"
    assert read_measurements(written(tmp_path, text)) == [measured()]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_json_file_is_a_list_or_has_one_under_measurements(tmp_path: Path, wrapped: bool) -> None:
    rows = [
        {"variant": "round", "seed": 0, "metric": "sweeps", "value": 1},
        {"variant": "round", "seed": 1, "metric": "sweeps", "value": "inf"},
        {"variant": "round", "seed": 2, "metric": "sweeps", "value": True},
    ]
    text = json.dumps({"measurements": rows} if wrapped else rows)
    assert read_measurements(written(tmp_path, text, "numbers.json")) == [
        measured(),
        measured(seed=1, value=math.inf),
        measured(seed=2, value=1.0),
    ]


@pytest.mark.parametrize(("word", "value"), [("true", 1.0), ("FALSE", 0.0), ("Infinity", math.inf)])
def test_words_of_spreadsheets_are_values(tmp_path: Path, word: str, value: float) -> None:
    path = written(tmp_path, f"{HEADER}round,0,sweeps,{word}\n")
    assert read_measurements(path)[0].value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "numbers.csv: is empty; the first line names variant, seed, metric, value"),
        (HEADER, "numbers.csv: holds no measurements"),
        (
            "variant,sed,metric,value\n",
            "numbers.csv: line 1: unknown column 'sed'. Did you mean 'seed'?",
        ),
        ("variant,seed,metric\n", "numbers.csv: line 1: missing column 'value'"),
        ("variant,seed,seed,metric,value\n", "numbers.csv: line 1: repeated column 'seed'"),
        (
            "variant;seed;metric;value\n",
            "numbers.csv: line 1: cells must be separated by commas, "
            "is 'variant;seed;metric;value'",
        ),
        (
            HEADER + "round,0,sweeps,9,5\n",
            "numbers.csv: line 2: 5 cells under 4 columns; a decimal comma must be a point",
        ),
        (
            HEADER + "round,0,sweeps,1\nround,1.5,sweeps,1\n",
            "numbers.csv: line 3, 'seed': must be a whole number, is '1.5'",
        ),
        (
            HEADER + "round,0,sweeps,much\n",
            "numbers.csv: line 2, 'value': must be a number or 'inf', is 'much'",
        ),
        (
            HEADER + "round,0,sweeps,nan\n",
            "numbers.csv: line 2, 'value': must be a number, or 'inf' for a target that was never "
            "reached, is 'nan'",
        ),
        (
            HEADER + "round,0,sweeps,-inf\n",
            "numbers.csv: line 2, 'value': must be a number, or 'inf' for a target that was never "
            "reached, is '-inf'",
        ),
        (
            HEADER + "round,0,sweeps,\n",
            "numbers.csv: line 2, 'value': is empty; leave the row out where the metric is not "
            "defined",
        ),
        (HEADER + ",0,sweeps,1\n", "numbers.csv: line 2, 'variant': must be a name, is ''"),
        (
            HEADER + "round,0,sweeps,1\n\nround,0,sweeps,2\n",
            "numbers.csv: line 4: variant 'round', seed 0, metric 'sweeps' appears twice; keep one "
            "of them",
        ),
        (
            HEADER + 'round,0,"sweeps,1\n',
            "numbers.csv: line 2: not valid CSV: unexpected end of data",
        ),
    ],
)
def test_a_bad_csv_file_gets_one_line_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_measurements(written(tmp_path, text))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[\n{]",
            "numbers.json: line 2: not valid JSON: Expecting property name enclosed in double "
            "quotes",
        ),
        ("3", "numbers.json: must be a list of objects, or have one under 'measurements'"),
        (
            '{"runs": []}',
            "numbers.json: must be a list of objects, or have one under 'measurements'",
        ),
        ("[]", "numbers.json: holds no measurements"),
        ("[1]", "numbers.json: measurement 1: must be an object with variant, seed, metric, value"),
        (
            '[{"variant": "round", "seed": 0, "metrc": "sweeps", "value": 1}]',
            "numbers.json: measurement 1: unknown key 'metrc'. Did you mean 'metric'?",
        ),
        (
            '[{"variant": "round", "seed": 0, "metric": "sweeps"}]',
            "numbers.json: measurement 1: missing key 'value'",
        ),
        (
            '[{"variant": "round", "seed": true, "metric": "sweeps", "value": 1}]',
            "numbers.json: measurement 1, 'seed': must be a whole number, is True",
        ),
        (
            '[{"variant": "round", "seed": 0, "metric": "sweeps", "value": [1]}]',
            "numbers.json: measurement 1, 'value': must be a number or 'inf', is [1]",
        ),
        (
            '[{"variant": "round", "seed": 0, "metric": "sweeps", "value": null}]',
            "numbers.json: measurement 1, 'value': is empty; leave the row out where the metric is "
            "not defined",
        ),
        (
            '[{"variant": 7, "seed": 0, "metric": "sweeps", "value": 1}]',
            "numbers.json: measurement 1, 'variant': must be a name, is 7",
        ),
        (
            '[{"variant": "two\\nlines", "seed": 0, "metric": "sweeps", "value": 1}]',
            "numbers.json: measurement 1, 'variant': must be a name, is 'two\\nlines'",
        ),
        (
            '[{"variant": "round", "seed": 0, "seed": 1, "metric": "sweeps", "value": 1}]',
            "numbers.json: cannot be read: the key 'seed' stands twice in an object",
        ),
        (
            '[{"variant": "round", "seed": 0, "metric": "sweeps", "value": 1e160}]',
            "numbers.json: measurement 1, 'value': must be at most 1e+150, is 1e+160",
        ),
    ],
)
def test_a_bad_json_file_gets_one_line_with_file_and_measurement(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_measurements(written(tmp_path, text, "numbers.json"))
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["[" * 100_000, f'[{{"seed": {"9" * 5000}}}]'])
def test_json_that_python_does_not_take_gets_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"^numbers\.json: cannot be read: [^\n]+$"):
        read_measurements(written(tmp_path, text, "numbers.json"))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"numbers\.xlsx: measurements are read from \.csv"):
        read_measurements(written(tmp_path, "", "numbers.xlsx"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.csv: cannot be read: No such file"):
        read_measurements(tmp_path / "absent.csv")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(RequestError, match=r"numbers\.csv: is not UTF-8 text"):
        read_measurements(path)


def test_measurements_from_elsewhere_are_judged_as_ours_are(tmp_path: Path, claims: Claims) -> None:
    rows = [f"round,{seed},test/error,{10 + seed / 100}" for seed in range(5)]
    rows += ["square,0,test/error,30", *(f"round,{seed},sweeps,inf" for seed in range(5))]
    path = written(tmp_path, HEADER + "\n".join(rows))
    verdicts = judge_external(claims, read_measurements(path))
    assert [(v.id, v.lane, v.n) for v in verdicts] == [
        ("error", "reproduced", 5),
        ("better", "reproduced", 5),
        ("fast", "below", 5),
    ]


def test_claims_without_measurements_are_not_run(claims: Claims) -> None:
    lanes = [v.lane for v in judge_external(claims, [measured()])]
    assert lanes == ["not run", "not run", "off"]


def test_an_unknown_variant_is_named_with_its_line_and_the_near_one(
    tmp_path: Path, claims: Claims
) -> None:
    path = written(tmp_path, HEADER + "rownd,0,sweeps,1\n")
    with pytest.raises(RequestError) as caught:
        judge_external(claims, read_measurements(path))
    assert str(caught.value) == (
        "numbers.csv: line 2: unknown variant 'rownd'. Did you mean 'round'?"
    )


def test_an_unknown_metric_is_named_with_the_near_one(claims: Claims) -> None:
    with pytest.raises(RequestError, match=r"unknown metric 'sweep'\. Did you mean 'sweeps'\?"):
        judge_external(claims, [measured(metric="sweep")])


def test_a_measurement_given_twice_from_python_is_refused(claims: Claims) -> None:
    with pytest.raises(RequestError, match="appears twice"):
        judge_external(claims, [measured(), measured(value=2.0)])
