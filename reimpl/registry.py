"""Find papers: installed ones (entry-point group `reimpl.papers`) and folders of `--papers`.

Listing imports neither torch nor a paper; a paper's Python runs when `Entry.load` is called.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from zlib import crc32

from reimpl.claims import RIVALS, Claims, Variant
from reimpl.errors import PaperError, ReimplError, near
from reimpl.installed import entry_points
from reimpl.reading import load_claims

if TYPE_CHECKING:
    from reimpl.paper import Paper  # it imports torch

GROUP = "reimpl.papers"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A paper that was found, not imported yet.

    It can be pickled, so that a worker can load the paper itself.
    """

    slug: str
    folder: Path
    """Where `claims.toml` lies; empty when the paper was not found."""
    where: str
    """The entry point (`papers.lecun1998_lenet5:PAPER`) or the folder that the user gave."""
    target: str | None = None
    """The entry point, or None for a folder."""
    missing: str | None = None
    """Why the paper's code cannot be found, when it cannot."""

    @cached_property
    def claims(self) -> Claims:
        """The paper's `claims.toml`.

        Raises:
            PaperError: the entry point leads nowhere.
            ClaimsError: the file is missing or says something it must not.
        """
        if self.folder == Path():
            raise PaperError(f"paper '{self.slug}': {self.missing}")
        return load_claims(self.folder / "claims.toml")

    @cached_property
    def broken(self) -> str | None:
        """Why the paper cannot be used, as far as that shows without running its code."""
        try:
            self.claims  # noqa: B018  (read for its errors)
        except ReimplError as error:
            return str(error)
        return None if self.missing is None else f"paper '{self.slug}': {self.missing}"

    def load(self) -> Paper:
        """Import the paper's Python, and the rivals that its variants name.

        Raises:
            PaperError: it raises an exception, which is named with its line, or holds no `Paper` of
                this slug; a rival holds no `model`.
        """
        if self.missing is not None:
            raise PaperError(f"paper '{self.slug}': {self.missing}")
        rivals = {v.rival for v in self.claims.variants.values() if v.rival}
        try:
            package, found = self._import()
            models = {name: import_module(f".{RIVALS}.{name}", package) for name in rivals}
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())
            what = f"{type(error).__name__}: {said}" if said else type(error).__name__
            at = _place(error, self.folder)
            raise PaperError(f"paper '{self.slug}' cannot be imported: {what} ({at})") from error
        return self._with(models, self._checked(found)) if models else self._checked(found)

    def _with(self, rivals: Mapping[str, Any], paper: Paper) -> Paper:
        """The paper with the networks of ours that its variants name."""
        own = paper.model
        if own is None or any(paper.fit_of(v) for v in self.claims.variants.values() if v.rival):
            raise PaperError(f"paper '{self.slug}': its own 'fit' has no use for a 'rival'")
        for name, module in rivals.items():
            if not hasattr(module, "model"):
                raise PaperError(f"paper '{self.slug}': {RIVALS}/{name}.py has no function 'model'")

        def model(variant: Variant) -> Any:
            return (rivals[variant.rival].model if variant.rival else own)(variant)

        return replace(paper, model=model)

    def check_packages(self) -> None:
        """Whether the packages are installed that the paper asks for beyond the harness's own.

        Raises:
            PaperError: one is not; says how to install it.
        """
        for package, what in self.claims.paper.requires.items():
            if find_spec(package) is None:
                hint = f"install it with: pip install '{what}'"
                raise PaperError(f"paper '{self.slug}' needs {package}, which is not here; {hint}")

    def _import(self) -> tuple[str, Any]:
        """The name of the paper's package, and what it has for a paper."""
        if self.target is None:
            package = _import_folder(self.folder)
            return package.__name__, vars(package).get("PAPER")
        module, _, attributes = self.target.partition(":")
        found: Any = import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
        return module, found

    def _checked(self, found: Any) -> Paper:
        from reimpl.paper import Paper

        if not isinstance(found, Paper):
            hint = "write PAPER = Paper(...) in __init__.py"
            raise PaperError(f"paper '{self.slug}': {self.where} holds no Paper; {hint}")
        if found.slug != self.slug:
            hint = "make both the folder's name"
            raise PaperError(f"paper '{self.slug}': its PAPER says slug '{found.slug}'; {hint}")
        return found

    @cached_property
    def code(self) -> str:
        """A hash of what the paper's Python says."""
        from reimpl.keys import code_digest  # late: a list needs none

        return code_digest(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # not what was read so far


def entries(folders: Sequence[Path] = ()) -> list[Entry]:
    """All papers, by slug; of two with one slug, the folder given last wins over all others.

    Raises:
        PaperError: a folder does not exist or holds no paper.
    """
    found = {name: _installed(name, target) for name, target in entry_points(GROUP)}
    for given in folders:
        for folder in _paper_folders(given):
            found[folder.name] = _in_folder(folder)
    return [found[slug] for slug in sorted(found)]


def find(name: str, folders: Sequence[Path] = ()) -> Entry:
    """The paper of that slug or in that folder, or the only one whose slug has `name` in it.

    Raises:
        PaperError: unknown or ambiguous; lists the near ones.
    """
    if (Path(name) / "claims.toml").is_file():
        folder = Path(name).resolve()
        folders, name = [folder], folder.name
    known = {entry.slug: entry for entry in entries(folders)}
    if name in known:
        return known[name]
    matches = [slug for slug in known if name.lower() in slug.lower()]
    if len(matches) == 1 and name:
        return known[matches[0]]
    if matches and name:
        raise PaperError(f"paper '{name}' is ambiguous: {', '.join(matches)}. Write more of it.")
    raise PaperError(f"unknown paper '{name}'. {_near_slug(name, list(known))}")


def _near_slug(name: str, slugs: list[str]) -> str:
    """Like `near`, also by the parts of a slug: 'lenet6' is near 'lecun1998_lenet5'."""
    parts = {part for slug in slugs for part in (slug, *slug.split("_"))}
    hint = near(name.lower(), parts)
    return hint if hint.startswith("Did") else near(name, slugs)


def _installed(slug: str, target: str) -> Entry:
    why = "no such module"
    try:
        spec = _locate(target.partition(":")[0])
    except Exception as error:  # a finder's own trouble breaks this paper only
        spec, why = None, f"{type(error).__name__}: {error}"
    folder, missing = Path(), None
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
    else:
        missing = f"entry point {target}: {why}; install its package again or remove it"
    return Entry(slug=slug, folder=folder, where=target, target=target, missing=missing)


def _locate(module: str) -> ModuleSpec | None:
    """Find a module without importing its parents as `find_spec` would: they may import torch."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _paper_folders(given: Path) -> list[Path]:
    folder = given.resolve()
    if not folder.is_dir():
        raise PaperError(f"--papers {given}: no such folder")
    if (folder / "claims.toml").exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/claims.toml"))
    if not found:
        raise PaperError(f"--papers {given}: no claims.toml in it or in a folder of it")
    return found


def _in_folder(folder: Path) -> Entry:
    has_code = (folder / "__init__.py").exists()
    missing = None if has_code else f"{folder} has no __init__.py that says PAPER = Paper(...)"
    return Entry(slug=folder.name, folder=folder, where=str(folder), missing=missing)


def _import_folder(folder: Path) -> ModuleType:
    """Import a folder as a package of a private name: two folders of one slug do not meet."""
    number = crc32(bytes(folder))
    name = f"reimpl_paper_{number:08x}_" + re.sub(r"\W", "_", folder.name)
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


def _place(error: BaseException, folder: Path) -> str:
    """File and line of the paper's own code nearest to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return _short(Path(error.filename), error.lineno, folder)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    last = (own or frames)[-1]
    return _short(Path(last.filename), last.lineno, folder)


def _short(path: Path, line: int | None, folder: Path) -> str:
    inside = path.is_relative_to(folder)
    return f"{path.relative_to(folder.parent) if inside else path.name}:{line}"
