import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reimpl import report
from reimpl.claims import Claims
from reimpl.engines import Room
from reimpl.errors import PaperError
from reimpl.estimates import Planned
from reimpl.evidence import BestBaseline, Evidence, Result
from reimpl.jobs import Job
from reimpl.judging import judge_all
from reimpl.planning import Plan, Request
from reimpl.reading import load_claims
from reimpl.records import Record, Records
from reimpl.registry import Entry, entries, find
from reimpl.report.text import decimals, spread_decimals
from reimpl.verdict import Verdict

CLAIMS = """
[paper]
title = "Everything at once"
authors = ["A. Author"]
year = 2026
url = "https://example.org"

[metric.size]
unit = "count"
better = "neither"
definition = "weights"

[metric."test/error"]
unit = "%"
better = "lower"
definition = "wrong test items"

[metric.steps]
unit = "steps"
better = "lower"
definition = "steps to the target"

[setting.width]
says = "units"
source = "sec. 2"

[[variant]]
id = "wide"
says = "the wide one"
source = "sec. 2"
width = 3

[[variant]]
id = "middle"
extends = "wide"
says = "the middle one"
width = 2

[[variant]]
id = "slim"
extends = "wide"
says = "the slim one"
width = 1

[[claim]]
id = "size"
kind = "exact"
says = "60,000 weights"
source = "p. 1"
metric = "size"
variant = "wide"
published = "60,000"
cost = "instant"

[[claim]]
id = "error"
kind = "value"
says = "an error of 0.95 % | or so"
source = "table 1"
metric = "test/error"
variant = "wide"
published = "0.95"
margin = 0.2
margin_reason = "by decree"
cost = "minutes"

[[claim]]
id = "order"
kind = "order"
says = "wide beats slim"
source = "table 1"
metric = "test/error"
variants = ["wide", "slim"]
cost = "minutes"

[[claim]]
id = "steps"
kind = "speed"
says = "it takes 1,425 steps"
source = "p. 2"
metric = "steps"
variant = "wide"
published = "1,425"
target = "100 %"
cost = "minutes"

[[claim]]
id = "holds"
kind = "property"
says = "mostly below one"
source = "p. 3"
metric = "test/error"
variant = "wide"
test = "< 1.0"
share = 0.5
margin_reason = "mostly"
cost = "minutes"

[[claim]]
id = "falls"
kind = "trend"
says = "width helps"
source = "p. 3"
metric = "test/error"
setting = "width"
variants = ["slim", "middle", "wide"]
direction = "falls"
cost = "minutes"

[[claim]]
id = "ours"
kind = "value"
says = "a small setting of ours"
source = "our records"
metric = "test/error"
variant = "slim"
published = "3.1"
proxy = true
cost = "minutes"

[[claim]]
id = "later"
kind = "value"
says = "takes long"
source = "table 2"
metric = "steps"
variant = "slim"
published = "7"
cost = "hours"
"""
WIDE = dict(enumerate([0.93, 0.99, 0.97, 0.90, 0.96]))
SLIM = dict(enumerate([3.0, 3.1, 3.2, 3.05, 3.15]))
MIDDLE = dict(enumerate([2.0, 2.1, 2.2, 2.05, 2.15]))
STEPS = dict(enumerate([1400.0, 1500.0, math.inf, 1300.0, 1450.0]))
MEASURED = {
    "size": {"wide": {0: 60_000.0}},
    "test/error": {"wide": WIDE, "middle": MIDDLE, "slim": SLIM},
    "steps": {"wide": STEPS},
}


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    path = tmp_path / "author2026_all" / "claims.toml"
    path.parent.mkdir()
    path.write_text(CLAIMS, encoding="utf-8")
    return load_claims(path)


def rows(claims: Claims, **more: Any) -> dict[str, dict[str, str]]:
    verdicts = judge_all(claims, MEASURED)
    table = report.verdict_table(claims, verdicts, measured=MEASURED, **more)
    return {
        v.id: dict(zip(table.heads, row, strict=True))
        for v, row in zip(verdicts, table.rows, strict=True)
    }


def lines(page: report.Page, **how: Any) -> list[str]:
    return report.render(page, **how).splitlines()


def record(variant: str = "wide", seed: int = 0, **more: Any) -> Record:
    values: dict[str, Any] = {
        "paper": "author2026_all",
        "variant": variant,
        "seed": seed,
        "part": "train",
        "status": "ok",
        "measurements": {"test/error": 1.0},
        "key": "0" * 64,
        "key_parts": {},
        "started": "2026-01-01T00:00:00+00:00",
        "wall_s": 1.0,
        "cpu_s": 1.0,
    }
    return Record(**values | more)


def result(claims: Claims, **more: Any) -> Result:
    verdicts = tuple(judge_all(claims, MEASURED))
    values: dict[str, Any] = {
        "entry": entry(claims),
        "verdicts": verdicts,
        "evidence": Evidence(records=()),
    }
    return Result(**values | more)


def entry(claims: Claims) -> Entry:
    folder = claims.path.parent
    return Entry(slug=folder.name, folder=folder, where=str(folder))


def verdict(lane: str, **more: Any) -> Verdict:
    values: dict[str, Any] = {
        "id": "error",
        "kind": "value",
        "lane": lane,
        "says": "",
        "source": "",
        "metric": "test/error",
        "unit": "%",
        "cost": "minutes",
    }
    return Verdict(**values | more)


# Text


def test_columns_are_aligned_and_numbers_set_to_the_right() -> None:
    table = report.Table(
        heads=("name", "n"), rows=[("a", "1"), ("long", "1,000")], right=frozenset({"n"})
    )
    assert lines([table]) == ["  name      n", "  a         1", "  long  1,000"]


def test_a_column_that_is_empty_everywhere_is_left_out() -> None:
    table = report.Table(heads=("a", "b", "c"), rows=[("1", "", "3")])
    assert lines([table]) == ["  a  c", "  1  3"]


def test_the_last_column_is_wrapped_beside_the_others_where_there_is_room() -> None:
    words = "one two three four five six seven eight nine ten"
    table = report.Table(heads=("a", "note"), rows=[("x", words)])
    found = lines([table], width=40)
    assert found[1:] == ["  x  one two three four five six seven", "     eight nine ten"]


def test_columns_that_can_be_spared_go_one_by_one_before_a_line_is_too_long() -> None:
    heads, row = ("claim", "kind", "unit", "verdict", "note"), ("error", "value", "%", "below", "x")
    table = report.Table(heads=heads, rows=[row], spare=("kind", "unit"))
    assert lines([table], width=35)[0] == "  claim  kind   unit  verdict  note"
    assert lines([table], width=29)[0] == "  claim  kind   unit  verdict"
    assert lines([table], width=28)[0] == "  claim  unit  verdict  note"
    assert lines([table], width=21)[0] == "  claim  verdict"
    heading = ["  claim", "    verdict", "      note"]
    assert lines([table], width=12) == [*heading, "  error", "    below", "      x"]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_of_a_verdict_table_is_longer_than_the_terminal(claims: Claims, width: int) -> None:
    page = report.result_page(result(claims))
    table = next(part for part in page if isinstance(part, report.Table))
    found = lines([table], width=width)
    assert max(map(len, found)) <= width
    assert sum("reproduced" in line for line in found) == 6


def test_the_last_column_stands_below_where_there_is_no_room() -> None:
    words = "one two three four five six seven eight nine ten"
    table = report.Table(heads=("a", "note"), rows=[("x" * 30, words)])
    found = lines([table], width=50)
    assert found[1:] == [
        "  " + "x" * 30,
        "      one two three four five six seven eight nine",
        "      ten",
    ]


def test_lanes_are_painted_on_a_terminal_only() -> None:
    table = report.Table(heads=("verdict",), rows=[("below",)])
    assert "\x1b" not in report.render([table])
    assert "\x1b[31mbelow" in report.render([table], colour=True)


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.9612, 3, "0.961"),
        (1459.04, 1, "1,459.0"),
        (60000.0, None, "60,000"),
        (0.0123456, None, "0.01235"),
        (12345.67, None, "12,345.7"),
        (math.inf, 1, "never"),
        (None, 1, "-"),
        (0, None, "0"),
    ],
)
def test_a_figure_reads_well(value: float | None, places: int | None, text: str) -> None:
    assert report.figure(value, places) == text


@pytest.mark.parametrize(
    ("published", "places"),
    [("0.95", 3), ("1,425", 1), ("12.0", 2), ("3e2", 1), ("1e-3", 4), (None, None)],
)
def test_our_figure_has_one_decimal_more_than_the_printed_one(
    published: str | None, places: int | None
) -> None:
    assert decimals(published) == places


@pytest.mark.parametrize(
    ("sd", "places"), [(0.72, 2), (0.012, 3), (250, 0), (0, None), (None, None)]
)
def test_a_spread_has_two_significant_digits(sd: float | None, places: int | None) -> None:
    assert spread_decimals(sd) == places


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under a second"), (40, "40 s"), (250, "4 minutes"), (9000, "2.5 hours")],
)
def test_a_time_is_in_the_unit_people_use(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


# Verdicts


def test_a_value_shows_mean_and_spread_beside_the_printed_figure(claims: Claims) -> None:
    row = rows(claims)["error"]
    shown = row["published"], row["measured"], row["runs"], row["margin"], row["verdict"]
    assert shown == ("0.95", "0.950 ± 0.035", "5", "± 0.2", "reproduced")


def test_a_count_shows_no_decimals(claims: Claims) -> None:
    assert rows(claims)["size"]["measured"] == "60,000"


def test_an_order_shows_the_difference(claims: Claims) -> None:
    assert rows(claims)["order"]["measured"].startswith("-2.150 ± ")


def test_a_time_to_a_target_counts_the_misses(claims: Claims) -> None:
    row = rows(claims)["steps"]
    assert (row["measured"], row["runs"], row["margin"]) == ("1,450.0", "4 of 5", "× 1.25")


def test_runs_beyond_those_that_count_are_not_called_missed(claims: Claims) -> None:
    speed = verdict("reproduced", id="steps", kind="speed", metric="steps", n=2, variants=("wide",))
    table = report.verdict_table(claims, [speed], measured=MEASURED)  # the third missed
    assert dict(zip(table.heads, table.rows[0], strict=True))["runs"] == "2"


def test_a_property_shows_the_share_of_runs(claims: Claims) -> None:
    row = rows(claims)["holds"]
    assert (row["measured"], row["unit"], row["margin"]) == ("100.0", "% of runs", "≥ 50")


def test_a_trend_shows_its_direction_and_slope(claims: Claims) -> None:
    row = rows(claims)["falls"]
    assert row["published"] == "falls"
    assert row["measured"].startswith("-1.0")


def test_a_proxy_never_shows_its_figure_as_the_papers(claims: Claims) -> None:
    table = report.verdict_table(claims, judge_all(claims, MEASURED))
    row = next(dict(zip(table.heads, r, strict=True)) for r in table.rows if "ours" in r[0])
    assert (row["claim"], row["published"]) == ("ours (proxy)", "-")
    assert row["note"].startswith("our own setting, expected 3.1")


def test_a_claim_that_was_not_run_says_how_to_run_it(claims: Claims) -> None:
    row = rows(claims)["later"]
    assert row["verdict"] == "not run"
    assert row["note"] == "no run of 'slim' measured steps; ask for it with --cost hours"


def test_the_best_baseline_has_a_column_only_where_there_is_one(claims: Claims) -> None:
    best = {"error": BestBaseline(name="knn", value=0.97, n=1)}
    assert rows(claims, baselines=best)["error"]["best baseline"] == "knn 0.970"
    plain_page: report.Page = [report.verdict_table(claims, judge_all(claims, MEASURED))]
    assert "best baseline" not in report.render(plain_page)


def test_the_counting_line_counts_each_lane_once() -> None:
    lanes = ["reproduced", "reproduced", "below", "inconclusive", "not run"]
    found = report.counting([verdict(lane) for lane in lanes])
    assert found == "2 of 5 claims reproduced, 1 below, 1 inconclusive, 1 not run"


def test_the_counting_line_says_how_many_stand_after_holm() -> None:
    tested = [verdict("reproduced", survives_holm=s) for s in (True, False, None)]
    found = report.counting(tested)
    assert found.endswith("; 1 of the 2 tested also holds after Holm's correction")
    found = report.counting(tested[:2])
    assert found.endswith("; 1 of the 2 also holds after Holm's correction")


def test_proxies_are_counted_apart() -> None:
    found = report.counting([verdict("reproduced"), verdict("below", proxy=True)])
    assert found == "1 of 1 claim reproduced; 0 of 1 proxy of ours reproduced, 1 below"


def test_a_claim_that_holm_takes_away_says_so(claims: Claims) -> None:
    lost = verdict("reproduced", survives_holm=False, note="inside")
    table = report.verdict_table(claims, [lost])
    assert table.rows[0][-1] == "inside; not after Holm's correction"


def test_the_result_says_what_it_rests_on(claims: Claims) -> None:
    evidence = Evidence(
        records=(),
        where={
            ("train", "wide"): "local",
            ("counts", "wide"): "committed",
            ("train", "slim"): "committed",
            ("counts", "slim"): "local",
            ("baseline", "linear on slim"): "local",
        },
        unused={"wide": 3},
        stale=("slim",),
        unreadable=(Path("runs/a.unreadable"),),
        errors=(record(status="error", error="Traceback\nValueError: too much"),),
    )
    text = report.render(report.result_page(result(claims, evidence=evidence)))
    assert "evidence: committed records of 1 variant; 1 from runs here" in text
    assert "not counted: 3 committed runs of wide, for which fewer here stand" in text
    assert "stale: the code has changed since the committed records of slim" in text
    assert "set aside: 1 record that cannot be read, such as runs/a.unreadable" in text
    assert "failed: 1 run, the first wide, seed 0: ValueError: too much" in text


def test_a_failed_run_says_where_in_the_papers_code_it_was() -> None:
    error = (
        'Traceback (most recent call last):\n  File "/x/reimpl/jobs.py", line 9, in _train\n'
        '  File "/x/papers/author2026_all/model.py", line 18, in forward\n    y\n'
        '  File "/y/torch/nn.py", line 7, in call\n    z\nValueError: too much\n'
    )
    assert report.last_line(record(error=error)) == "ValueError: too much (model.py:18)"
    elsewhere = record(paper="another2026", error=error)
    assert report.last_line(elsewhere) == "ValueError: too much (nn.py:7)"


def test_a_paper_without_claims_is_not_called_altered(claims: Claims) -> None:
    text = report.render(report.result_page(result(claims, verdicts=())))
    assert "no claim is stated, so there is nothing to judge" in text
    assert "altered" not in text


def test_json_says_in_what_a_mean_and_a_margin_are(claims: Claims) -> None:
    found = {claim["id"]: claim for claim in report.to_json(result(claims))["claims"]}
    assert (found["holds"]["unit"], found["error"]["unit"]) == ("share of runs", "%")
    assert found["steps"]["margin_is"] == "a natural logarithm"
    assert found["error"]["margin_is"] == "in the unit"


def test_altered_runs_show_means_and_no_verdict(claims: Claims) -> None:
    runs = tuple(record(seed=s, measurements={"test/error": 1.0 + s}) for s in range(3))
    own = {"test/error": {"wide": {0: 4.0, 1: 6.0}}}
    altered = result(claims, verdicts=(), evidence=Evidence(records=runs), unaltered=own)
    text = report.render(report.result_page(altered, altered="--set lr=1"))
    assert "altered runs (--set lr=1): not judged as the paper's" in text
    assert re.search(r"wide +test/error +2\.0 ± 1\.0 +3 +5\.0 ± 1\.4 +2 +%", text)
    assert "reproduced" not in text


def test_a_verdict_that_rests_on_older_code_says_so(claims: Claims) -> None:
    page = report.result_page(result(claims, evidence=Evidence(records=(), stale=("slim",))))
    notes = {row[0]: row[-1] for part in page if not isinstance(part, str) for row in part.rows}
    assert notes["order"].startswith("of older code; ")
    assert not notes["error"].startswith("of older code")
    stale = {name for name, note in notes.items() if note.startswith("of older code")}
    assert str(page[-1]).endswith(f"; {len(stale)} rest on runs of older code")
    table = report.to_json(result(claims, evidence=Evidence(records=(), stale=("slim",))))
    assert {c["id"] for c in table["claims"] if c["stale"]} == {n.split()[0] for n in stale}


def test_json_has_what_the_design_promises_of_each_claim(claims: Claims) -> None:
    found = report.to_json(result(claims))
    promised = [
        "id",
        "kind",
        "lane",
        "n",
        "mean",
        "interval",
        "published",
        "margin",
        "seeds_needed",
        "best_baseline",
    ]
    assert found["paper"] == "author2026_all"
    assert [name for name in promised if any(name not in c for c in found["claims"])] == []
    assert sum(found["counts"].values()) + sum(found["proxies"].values()) == len(found["claims"])


def test_json_of_altered_runs_has_measurements_and_no_claim(claims: Claims) -> None:
    runs = (record(measurements={"steps": math.inf}),)
    found = report.to_json(result(claims, verdicts=(), evidence=Evidence(records=runs)))
    assert found["claims"] == []
    assert found["measured"] == {"steps": {"wide": {"0": "inf"}}}


# README


def test_the_readme_table_stands_between_its_marks(claims: Claims) -> None:
    readme = claims.path.parent / "README.md"
    readme.write_text(
        "# All\n\n<!-- table -->\nearlier\n<!-- /table -->\n\nend\n", encoding="utf-8"
    )
    text = report.rebuild_readme(entry(claims), result(claims))
    assert "earlier" not in text
    assert text.startswith("# All\n\n<!-- table -->\n| claim |")
    assert text.endswith("0 committed runs.\n<!-- /table -->\n\nend\n")


def test_rebuilding_a_readme_twice_changes_nothing(claims: Claims) -> None:
    readme = claims.path.parent / "README.md"
    readme.write_text("<!-- table --><!-- /table -->", encoding="utf-8")
    once = report.rebuild_readme(entry(claims), result(claims))
    readme.write_text(once, encoding="utf-8")
    assert report.rebuild_readme(entry(claims), result(claims)) == once


def test_a_bar_in_a_claim_does_not_break_the_markdown(claims: Claims) -> None:
    row = next(
        line for line in report.markdown_table(result(claims)).splitlines() if "`error`" in line
    )
    assert "0.95 % \\| or so" in row
    assert row.replace("\\|", "").count("|") == 8


@pytest.mark.parametrize("text", ["# No marks\n", "<!-- table -->\n", None])
def test_a_readme_without_a_place_for_the_table_is_named(claims: Claims, text: str | None) -> None:
    if text is not None:
        (claims.path.parent / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(PaperError, match=r"author2026_all/README\.md"):
        report.rebuild_readme(entry(claims), result(claims))


RECORDED = [e.slug for e in entries() if (e.folder / "measured.jsonl").exists()]


@pytest.mark.parametrize("slug", RECORDED)
def test_the_committed_readme_is_what_the_committed_records_say(slug: str) -> None:
    paper = find(slug)
    text = (paper.folder / "README.md").read_text(encoding="utf-8")
    assert report.rebuild_readme(paper) == text


# Papers and plans


def test_a_broken_paper_stands_in_the_list_with_its_reason(claims: Claims) -> None:
    broken = Entry(slug="bad", folder=Path(), where="bad", missing="no such module")
    found = lines(report.list_page(report.listed([broken, entry(claims)])))
    assert "broken: paper 'bad': no such module" in found[1]
    assert "Everything at once (2026)" in found[2]
    assert found[-1] == "2 papers, 1 broken"


def test_a_claim_is_shown_with_the_margin_that_is_used(claims: Claims) -> None:
    found = report.claim_json(claims, "steps")
    assert found["margin"] == pytest.approx(math.log(1.25))
    assert found["margin_reason"]


def job(claims: Claims, *seeds: int) -> Job:
    return Job(
        entry=entry(claims),
        variant="wide",
        seeds=seeds,
        keys=tuple("k" for _ in seeds),
        key_parts=tuple({} for _ in seeds),
        root=Path("runs"),
        memory_mb=700.0,
    )


def planned_as(claims: Claims, *planned: Planned, **more: Any) -> Plan:
    return Plan(
        request=Request(paper="p"),
        entry=entry(claims),
        planned=planned,
        room=Room(threads=2),
        left_out={},
        found=Records(ok=[], errors=[], unreadable=[]),
        **more,
    )


def test_a_plan_says_what_runs_and_how_long(claims: Claims) -> None:
    planned = Planned(
        variant="wide",
        part="train",
        seeds=(0, 1, 2),
        cached=(record(),),
        jobs=(job(claims, 1), job(claims, 2)),
        seconds=80.0,
        basis="earlier runs here",
        flops=2e12,
    )
    plan = replace(planned_as(claims, planned), left_out={"later": "costs hours"})
    text = report.render(report.plan_page(plan))
    assert "0:01:20" in text
    assert "0.7 GB  2.0e+12" in text
    assert "left out: later: costs hours" in text
    what, took = text.splitlines()[-1].split("; ")
    assert what == "1 variant, 2 runs to make, 1 cached"
    assert took == "about 40 s on 2 workers, 1.4 GB of memory, 2.0e+12 FLOPs"
    said = report.plan_json(plan)
    assert said["planned"][0]["to_run"] == [1, 2]
    assert (said["workers"], said["seconds"], said["memory_mb"]) == (2, 40.0, 1400.0)


def test_a_plan_says_what_the_budget_leaves(claims: Claims) -> None:
    plan = planned_as(claims, beyond_s=9000.0)
    assert report.plan_line(plan).endswith(
        "nothing to run; about 2.5 hours of work beyond the budget"
    )


def test_a_plan_admits_that_it_does_not_know_the_time(claims: Claims) -> None:
    planned = Planned(variant="wide", part="train", seeds=(0,), cached=(), jobs=(job(claims, 0),))
    known = replace(planned, seconds=10.0)
    nothing = report.plan_line(planned_as(claims, planned))
    some = report.plan_line(planned_as(claims, planned, known))
    assert "the time on 1 worker is not known before the first run" in nothing
    assert "about 10 s on 2 workers, and 1 of unknown time" in some


def test_reasons_of_many_seeds_stand_in_one_line() -> None:
    reasons = {f"wide, seed {seed}": ["the paper's code changed"] for seed in (0, 1, 2, 5)}
    found = lines(report.why_page(reasons))
    assert found[1] == "  wide     0-2, 5  the paper's code changed"
    assert found[-1] == "4 runs to make"
