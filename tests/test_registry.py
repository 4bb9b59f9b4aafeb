import importlib.metadata
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from reimpl.errors import ClaimsError, PaperError
from reimpl.registry import Entry, entries, entry_points, find

CLAIMS = """
[paper]
title = "A paper"
authors = ["A. Author"]
year = 2001
url = "https://example.org"

[[variant]]
id = "plain"
says = "the only one"
source = "sec. 1"
"""
CODE = "from reimpl.paper import Paper\nfrom .model import WIDTH\nPAPER = Paper(slug=SLUG)\n"


def write_paper(
    root: Path, slug: str, *, code: str = CODE, model: str = "WIDTH = 3\n", claims: str = CLAIMS
) -> Path:
    folder = root / slug
    folder.mkdir(parents=True)
    (folder / "claims.toml").write_text(claims)
    (folder / "__init__.py").write_text(code.replace("SLUG", repr(slug)))
    (folder / "model.py").write_text(model)
    return folder


def install(
    site: Path, monkeypatch: pytest.MonkeyPatch, *, package: str = "installed", **targets: str
) -> None:
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    points = "".join(f"{slug} = {target}\n" for slug, target in targets.items())
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[other]\nx = y:z\n\n[reimpl.papers]\n{points}")
    monkeypatch.syspath_prepend(str(site))


def only(folder: Path) -> Entry:
    return next(entry for entry in entries([folder]) if entry.folder.is_relative_to(folder))


def test_a_folder_with_claims_is_a_paper(tmp_path: Path) -> None:
    folder = write_paper(tmp_path, "author2001_thing")
    assert find("author2001_thing", [folder]).claims.paper.title == "A paper"


def test_sub_folders_with_claims_are_papers(tmp_path: Path) -> None:
    write_paper(tmp_path, "b2002_second")
    write_paper(tmp_path, "a2001_first")
    (tmp_path / "no_paper").mkdir()
    assert [e.slug for e in entries([tmp_path]) if e.folder.is_relative_to(tmp_path)] == [
        "a2001_first",
        "b2002_second",
    ]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaperError, match="gone: no such folder"):
        entries([tmp_path / "gone"])


def test_a_folder_without_papers_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaperError, match=r"no claims\.toml"):
        entries([tmp_path])


def test_a_folder_paper_imports_its_own_modules(tmp_path: Path) -> None:
    write_paper(tmp_path, "author2001_thing")
    assert only(tmp_path).load().slug == "author2001_thing"


def test_two_folders_of_one_slug_keep_their_own_modules(tmp_path: Path) -> None:
    code = CODE.replace("SLUG", "SLUG, counts=lambda _: {'width': WIDTH}")
    write_paper(tmp_path / "a", "p2001_x", code=code, model="WIDTH = 1.0\n")
    write_paper(tmp_path / "b", "p2001_x", code=code, model="WIDTH = 2.0\n")
    loaded = [only(tmp_path / name) for name in "ab"]
    variant = loaded[0].claims.variant("plain")
    widths = []
    for entry in loaded:
        counts = entry.load().counts
        assert counts is not None
        widths.append(counts(variant)["width"])
    assert widths == [1.0, 2.0]


def test_the_folder_given_last_wins(tmp_path: Path) -> None:
    write_paper(tmp_path / "a", "p2001_x")
    last = write_paper(tmp_path / "b", "p2001_x")
    assert find("p2001_x", [tmp_path / "a", tmp_path / "b"]).folder == last


def test_an_installed_paper_is_found_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paper(tmp_path / "found_pkg", "p2001_x")
    (tmp_path / "found_pkg" / "__init__.py").write_text("")
    install(tmp_path, monkeypatch, p2001_x="found_pkg.p2001_x:PAPER")
    entry = find("p2001_x")
    assert (entry.where, entry.load().slug) == ("found_pkg.p2001_x:PAPER", "p2001_x")


def test_the_users_folder_wins_over_an_installed_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paper(tmp_path / "site" / "won_pkg", "p2001_x")
    install(tmp_path / "site", monkeypatch, p2001_x="won_pkg.p2001_x:PAPER")
    mine = write_paper(tmp_path / "mine", "p2001_x")
    assert find("p2001_x", [tmp_path / "mine"]).where == str(mine)


def test_listing_runs_neither_the_paper_nor_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paper(tmp_path / "loud_pkg", "p2001_x", code="raise RuntimeError('imported')")
    (tmp_path / "loud_pkg" / "__init__.py").write_text("raise RuntimeError('imported')")
    install(tmp_path, monkeypatch, p2001_x="loud_pkg.p2001_x:PAPER")
    assert find("p2001_x").broken is None


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    write_paper(tmp_path, "p2001_x")
    code = (
        "import sys, pathlib; from reimpl.registry import entries;"
        "found = entries([pathlib.Path(sys.argv[1])]);"
        "assert 'p2001_x' in [e.slug for e in found if e.broken is None];"
        "print([m for m in ('torch', 'numpy', 'importlib.metadata') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_entry_points_are_those_of_importlib_metadata() -> None:
    known = [(e.name, e.value) for e in importlib.metadata.entry_points(group="console_scripts")]
    assert sorted(entry_points("console_scripts")) == sorted(known)


def test_a_package_installed_twice_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "old", monkeypatch, package="Twice_Pkg", gone2001_x="gone:PAPER")
    install(tmp_path / "new", monkeypatch, package="twice.pkg", here2001_x="here:PAPER")
    found = [name for name, _ in entry_points("reimpl.papers")]
    assert ("here2001_x" in found, "gone2001_x" in found) == (True, False)


def test_an_entry_point_that_leads_nowhere_is_broken_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, p2001_gone="no_such_pkg.p2001_gone:PAPER")
    write_paper(tmp_path / "mine", "p2001_good")
    broken = {e.slug: e.broken for e in entries([tmp_path / "mine"])}
    assert broken["p2001_good"] is None
    assert "no such module" in str(broken["p2001_gone"])


def test_the_claims_of_an_entry_point_that_leads_nowhere_are_a_paper_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, p2001_gone="no_such_pkg.p2001_gone:PAPER")
    with pytest.raises(PaperError, match="install its package again"):
        _ = find("p2001_gone").claims


def test_claims_that_cannot_be_read_break_that_paper_alone(tmp_path: Path) -> None:
    write_paper(tmp_path, "p2001_good")
    write_paper(tmp_path, "p2002_bad", claims="[papr]\n")
    broken = {e.slug: e.broken for e in entries([tmp_path])}
    assert broken["p2001_good"] is None
    assert "p2002_bad/claims.toml: top level: unknown block 'papr'" in str(broken["p2002_bad"])


def test_bad_claims_are_raised_when_read(tmp_path: Path) -> None:
    write_paper(tmp_path, "p2002_bad", claims="[papr]\n")
    with pytest.raises(ClaimsError, match="papr"):
        _ = only(tmp_path).claims


def test_claims_are_read_once(tmp_path: Path) -> None:
    entry = only(write_paper(tmp_path, "p2001_x"))
    assert entry.claims is entry.claims


def test_a_folder_without_code_can_be_read_but_not_loaded(tmp_path: Path) -> None:
    folder = write_paper(tmp_path, "p2001_x")
    (folder / "__init__.py").unlink()
    entry = only(folder)
    assert entry.claims.paper.year == 2001
    assert "no __init__.py" in str(entry.broken)
    with pytest.raises(PaperError, match=r"no __init__\.py"):
        entry.load()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "import no_such_module\n",
            "ModuleNotFoundError: No module named 'no_such_module' (p2001_x/model.py:1)",
        ),
        ("x = 1\nx +\n", "SyntaxError: invalid syntax (model.py, line 2) (p2001_x/model.py:2)"),
        ("\nimport json\njson.loads('')", "(p2001_x/model.py:3)"),
        ("raise SystemExit(3)", "SystemExit: 3 (p2001_x/model.py:1)"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines (p2001_x/model.py:1)"),
        ("assert False", "AssertionError (p2001_x/model.py:1)"),
    ],
)
def test_a_failing_import_is_one_line_with_its_place(tmp_path: Path, model: str, said: str) -> None:
    write_paper(tmp_path, "p2001_x", model=model)
    with pytest.raises(PaperError) as caught:
        only(tmp_path).load()
    line = str(caught.value)
    assert line.startswith("paper 'p2001_x' cannot be imported: ")
    assert line.endswith(said)
    assert "\n" not in line


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write_paper(tmp_path, "p2001_x", code="from . import model\nraise ValueError\n")
    with pytest.raises(PaperError):
        only(tmp_path).load()
    (folder / "__init__.py").write_text("# mended\n" + CODE.replace("SLUG", "'p2001_x'"))
    assert only(tmp_path).load().slug == "p2001_x"


def test_an_interrupt_during_import_is_not_a_broken_paper(tmp_path: Path) -> None:
    write_paper(tmp_path, "p2001_x", model="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        only(tmp_path).load()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "holds no Paper"),
        ("PAPER = 3\n", "holds no Paper"),
        ("from reimpl.paper import Paper\nPAPER = Paper(slug='other')", "slug 'other'"),
    ],
)
def test_a_module_without_its_paper_is_a_paper_error(tmp_path: Path, code: str, said: str) -> None:
    write_paper(tmp_path, "p2001_x", code=code)
    with pytest.raises(PaperError, match=said):
        only(tmp_path).load()


def test_an_entry_travels_to_a_worker_with_its_claims_read(tmp_path: Path) -> None:
    entry = only(write_paper(tmp_path, "p2001_x"))
    assert entry.claims.variants
    assert pickle.loads(pickle.dumps(entry)).load().slug == "p2001_x"


@pytest.mark.parametrize("name", ["lenet9", "lecun1990", "LECUN1990", "n1990_lenet9"])
def test_any_unambiguous_part_of_a_slug_names_the_paper(tmp_path: Path, name: str) -> None:
    for slug in ("lecun1990_lenet9", "p2001_x"):
        write_paper(tmp_path, slug)
    assert find(name, [tmp_path]).slug == "lecun1990_lenet9"


def test_a_whole_slug_wins_over_a_longer_one(tmp_path: Path) -> None:
    for slug in ("p2001_net", "p2001_net2"):
        write_paper(tmp_path, slug)
    assert find("p2001_net", [tmp_path]).slug == "p2001_net"


def test_an_ambiguous_name_lists_what_it_may_mean(tmp_path: Path) -> None:
    for slug in ("p2001_net", "p2001_net2", "q2001_other"):
        write_paper(tmp_path, slug)
    with pytest.raises(PaperError, match="'p2001' is ambiguous: p2001_net, p2001_net2"):
        find("p2001", [tmp_path])


@pytest.mark.parametrize(
    ("name", "said"),
    [("lenett9", "Did you mean 'lenet9'"), ("zzz", "Known: .*lecun1990_lenet9"), ("", "Known")],
)
def test_an_unknown_name_lists_the_near_ones(tmp_path: Path, name: str, said: str) -> None:
    for slug in ("lecun1990_lenet9", "p2001_x"):
        write_paper(tmp_path, slug)
    with pytest.raises(PaperError, match=said):
        find(name, [tmp_path])
