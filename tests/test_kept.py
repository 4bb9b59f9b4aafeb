import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from reimpl import evidence, kept
from reimpl.registry import entries, find
from reimpl.verdict import Verdict

BLANK = Verdict(
    id="a",
    kind="value",
    lane="reproduced",
    says="",
    source="",
    metric="m",
    unit="%",
    cost="instant",
)


def never() -> list[Verdict]:
    pytest.fail("judged again")


@pytest.mark.parametrize("in_looks", [False, True], ids=["all", "in looks"])
def test_kept_verdicts_of_every_paper_are_those_that_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_looks: bool
) -> None:
    for entry in entries():
        (tmp_path / entry.slug).mkdir()
        made = evidence.judged(entry, tmp_path, in_looks=in_looks).verdicts
        with monkeypatch.context() as patched:
            patched.setattr("reimpl.judging.judge_all", never)
            again = evidence.judged(entry, tmp_path, in_looks=in_looks).verdicts
        assert again == made
        assert repr(again) == repr(made)


def test_infinities_and_nothing_come_back_as_they_were(tmp_path: Path) -> None:
    odd = replace(BLANK, mean=inf, interval=(-inf, 1 / 3), variants=("x", "y"), p=None)
    kept.verdicts(tmp_path / "kept", 1, lambda: [odd, BLANK])
    assert kept.verdicts(tmp_path / "kept", 1, never) == [odd, BLANK]


def spoil(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('"reproduced"', '"below"'))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "damage",
    [
        spoil,
        cut,
        Path.unlink,
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_text(""),
    ],
    ids=["edited", "cut", "gone", "no text", "empty"],
)
def test_a_damaged_file_counts_for_nothing(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    kept.verdicts(tmp_path / "kept", 1, lambda: [BLANK])
    damage(tmp_path / "kept")
    other = replace(BLANK, lane="above")
    assert kept.verdicts(tmp_path / "kept", 1, lambda: [other]) == [other]


def test_what_is_given_and_the_code_that_judges_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "kept", replace(BLANK, lane="above")
    kept.verdicts(path, {"m": {"v": {0: 0.1}}}, lambda: [BLANK])
    assert kept.verdicts(path, {"m": {"v": {0: 0.1}}}, never) == [BLANK]
    assert kept.verdicts(path, {"m": {"v": {0: 0.2}}}, lambda: [other]) == [other]
    monkeypatch.setattr(kept, "_code", lambda: ["other code"])
    assert kept.verdicts(path, {"m": {"v": {0: 0.2}}}, lambda: [BLANK]) == [BLANK]
    monkeypatch.setattr(kept, "version", lambda _package: "99")
    assert kept.verdicts(path, {"m": {"v": {0: 0.2}}}, lambda: [other]) == [other]


def test_a_digest_tells_numbers_apart_by_what_they_are() -> None:
    """And not by which objects they are: a name that is used twice may be one object or two."""
    twice = "".join(["met", "ric"])
    equal = [{"metric": {0: 0.1}, "v": ["metric"]}, {twice: {0: 0.1}, "v": [twice]}]
    assert len({kept.digest(numbers) for numbers in equal}) == 1
    values = [0.1, 1, 1.0, True, None, inf, -inf, 0.0, -0.0, "1", [], {}]
    assert len({kept.digest({"m": {0: value}}) for value in values}) == len(values)
    with pytest.raises(ValueError, match="unmarshallable"):
        kept.digest({"m": object()})


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        assert kept.verdicts(tmp_path / "nowhere" / "kept", 1, lambda: [BLANK]) == [BLANK]
    assert not (tmp_path / "nowhere").exists()


def test_all_code_that_a_verdict_comes_from_is_named() -> None:
    code = "import json, sys, reimpl.judging; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in json.loads(done.stdout) if name.startswith("reimpl.")}
    assert ours == {f"reimpl.{name}" for name in kept.JUDGES}


def test_a_claim_that_changes_is_judged_anew(tiny_paper: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / tiny_paper.name).mkdir(parents=True)

    def margins() -> list[float | None]:
        entry = find("tiny", [tiny_paper])
        return [verdict.margin for verdict in evidence.judged(entry, tmp_path / "runs").verdicts]

    assert margins() == [0.5, 1.5, None]
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("margin = 1.5", "margin = 1.25"))
    assert margins() == [0.5, 1.25, None]
