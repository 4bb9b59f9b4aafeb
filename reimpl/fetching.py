"""Datasets from the hub or from a mirror of it, undecoded."""

import os
import shutil
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from reimpl.cache import entry_of, files_folder, named
from reimpl.claims import Source
from reimpl.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

HUB_TIMEOUT_S = 5.0


def mirror_of(source: Source) -> Path | None:
    """The dataset's folder in the mirror; None without a mirror."""
    chosen = os.environ.get("REIMPL_DATA_MIRROR")
    if not chosen:
        return None
    folder = Path(chosen).expanduser().absolute() / source.hub
    if not folder.is_dir():
        raise DataError(
            f"{named(source)}: the mirror has no folder {folder}; copy the dataset there as the "
            "hub lays it out, or unset REIMPL_DATA_MIRROR"
        )
    return folder


def splits(source: Source, scratch: Path) -> "DatasetDict":
    """All splits, undecoded, through `datasets`, which keeps its own files in `scratch`.

    Raises:
        DataError: nothing there, no network, or nothing that `datasets` can read.
    """
    mirror = mirror_of(source)
    if mirror is None and not _hub_answers():
        raise DataError(_three_ways(source))
    import datasets

    try:
        with _progress_only_on_a_terminal():
            return datasets.load_dataset(
                source.hub if mirror is None else str(mirror),
                source.config,
                revision=source.revision if mirror is None else None,
                cache_dir=str(scratch),
                verification_mode="no_checks",  # ours say more: rows, classes, checksums
            )
    except ConnectionError as error:
        raise DataError(_three_ways(source)) from error
    except Exception as error:  # of half a dozen libraries; each means that the data cannot be had
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "; its README.md names configs and files, and all must be there" if mirror else ""
        raise DataError(
            f"{named(source)}: {origin(source)} cannot be read: {first}{advice}"
        ) from error


def _three_ways(source: Source) -> str:
    return (
        f"{named(source)}: not in the cache, and the hub cannot be reached. Three ways to get it: "
        "set REIMPL_DATA_MIRROR to a folder laid out as the hub lays it out; run once with a "
        f"network, and it stays in the cache; or copy {entry_of(source)} from a machine that has "
        "it (REIMPL_CACHE moves the cache)"
    )


def origin(source: Source) -> str:
    """Where a dataset comes from here, in the words of messages."""
    mirror = mirror_of(source)
    return f"the mirror's {mirror}" if mirror else f"the hub's revision {source.revision[:12]}"


def _hub_answers() -> bool:
    """Whether the hub answers; unasked, `datasets` retries for 20 seconds before it gives up."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        urlopen(Request(hub, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(
            error.reason, ssl.SSLError
        )  # it answers; `datasets` has certificates of its own
    except OSError:
        return False
    return True


@contextmanager
def _progress_only_on_a_terminal() -> Iterator[None]:
    import datasets

    silence = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.enable_progress_bars()


def download(source: Source) -> None:
    """Fetch every file to a folder of another name, check them, then rename it.

    Raises:
        DataError: there is no address, or nothing to be had there, or not what `claims.toml` says.
    """
    if source.url is None:
        raise DataError(
            f"{named(source)}: claims.toml names no 'url' to fetch it from; set "
            "REIMPL_DATA_MIRROR to a folder that has it"
        )
    folder = files_folder(source)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for name in source.files:
            url = source.url.format(revision=source.revision, file=quote(name))
            target = building / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with urlopen(url, timeout=HUB_TIMEOUT_S) as answer:
                content = answer.read()
            if (found := sha256(content).hexdigest()) != source.files[name]:
                raise differs(source, name, found, at=url)
            target.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except (OSError, HTTPException) as error:  # URLError and timeouts are among them
        raise DataError(
            f"{named(source)}: not in the cache, and {source.url.partition('{')[0]}… cannot be "
            f"read ({error}). Set REIMPL_DATA_MIRROR to a folder that has {source.hub}, or run "
            "once with a network"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def differs(source: Source, name: str, found: str, *, at: object) -> DataError:
    """The mistake of a file with another checksum."""
    return DataError(
        f"{named(source)}: checksum of '{name}': expected {source.files[name]}, found {found} in "
        f"{at}; fetch it again, or correct claims.toml if the paper's data are these"
    )
