"""What a task of `ray` does on its worker, which is a process of another machine perhaps.

It tells the driver how the job goes, several messages at a time, and stops when the bell rings.
"""

import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import ray

from reimpl import data, jobs
from reimpl.claims import Source
from reimpl.engines import cluster
from reimpl.environment import environment
from reimpl.errors import ReimplError, RequestError
from reimpl.jobs import Job
from reimpl.records import Record
from reimpl.registry import Entry

TELL_EVERY = 0.2
"""Seconds between two reports."""
ROOT = Path(__file__).parents[2]
"""Where our code lies: the parcel."""
ENDS = ("done", "refused", "broken", "died", "stopped", "again")
"""Kinds of a last message; the driver makes `again` of those whose job it sends once more."""

OFF = threading.Event()
"""Work breaks off. Set once, as a worker serves one driver and ends with it."""

Message = tuple[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freight:
    """What every job takes with it."""

    bell: Any
    """Rings when work breaks off."""
    mark: Path
    """A file in the driver's folder of records: a worker that sees it sees that folder."""
    paper: str
    model: str | None
    sources: Mapping[str, Source] = field(default_factory=dict)
    packed: Mapping[str, Any] = field(default_factory=dict)
    """The files of each source, in Ray's object store."""


def work(job: Job, freight: Freight) -> Iterator[list[Message]]:
    """Do a job and tell what happens, several messages at a time."""
    said: SimpleQueue[Message] = SimpleQueue()
    signal.signal(signal.SIGINT, _stop)  # a run may begin as Ray cancels it

    def send(kind: str, contents: Any) -> None:
        said.put((kind, contents))

    threading.Thread(target=_do, args=(job, freight, send), daemon=True).start()
    last = ""
    while last not in ENDS:
        messages = list(_heard(said))
        if messages:
            last = messages[-1][0]
        if messages and (last in ENDS or not OFF.is_set()):  # Ray ends a cancelled task that yields
            yield messages


def _heard(said: "SimpleQueue[Message]") -> Iterator[Message]:
    """What is said until the next report is due, or until the end."""
    until = time.monotonic() + TELL_EVERY
    with suppress(Empty):
        while True:
            message = said.get(timeout=max(0.0, until - time.monotonic()))
            yield message
            if message[0] in ENDS:
                return


def _stop(*_: object) -> None:
    OFF.set()
    stop = getattr(sys.modules.get("reimpl.context"), "STOP", None)  # torch may be loading yet
    if stop is not None:
        stop.set()


@cache
def _listen(bell: Any) -> Any:
    """Stop when the bell rings; a bell that is lost tells nothing. Waiting would free the core."""
    heard = bell.heard.remote()
    heard.future().add_done_callback(lambda told: told.exception() or _stop())
    return heard


def _do(job: Job, freight: Freight, send: Callable[[str, Any], None]) -> None:
    """Send how the job goes and, whatever happens, how it ended: the driver waits for that."""
    send("started", {"node": ray.get_runtime_context().get_node_id()})
    try:
        send(*_ended(job, freight, lambda kind, contents: send(kind, dict(contents))))
    except ReimplError as error:
        send("refused", error)
    except SystemExit as error:
        send("died", f"ended with status {_status(error)}")
    except BaseException:
        send("broken", traceback.format_exc())


def _ended(job: Job, freight: Freight, emit: Callable[[str, Mapping[str, Any]], None]) -> Message:
    try:
        from reimpl.context import STOP, Stopped
    except ImportError as error:
        raise RequestError(f"a worker lacks a package: {error}") from None
    except Exception as error:  # a library of torch's that is not there, or not for this machine
        raise RequestError(f"a worker cannot begin: {cluster.one_line(error)}") from None
    _listen(freight.bell)
    if OFF.is_set():
        STOP.set()
    try:
        with jobs.computing(job.threads):
            return "done", _done(job, freight, emit)
    except Stopped:
        return "stopped", "it was asked to stop"


def _status(error: SystemExit) -> int:
    """With what status a process ends that raises it."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _done(
    job: Job, freight: Freight, emit: Callable[[str, Mapping[str, Any]], None]
) -> list[Record]:
    _check_versions(job.key_parts[0]["torch"], job.key_parts[0]["numpy"])
    for name, source in freight.sources.items():
        if not data.packed_is_here(source):
            data.unpack(source, ray.get(freight.packed[name]))
    here = _moved_in(job, freight)
    if freight.mark.is_file():
        return jobs.attempt(here, emit)
    aside = Path(tempfile.gettempdir()) / f"reimpl{freight.mark.name}" / job.keys[0]
    try:
        return jobs.attempt(replace(here, root=aside), emit)
    finally:  # nobody comes back to it, but for another try after this process was killed
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            aside.parent.rmdir()  # unless another is at work there


def _moved_in(job: Job, freight: Freight) -> Job:
    """The job with the code where it lies on this worker."""
    model = freight.model and str(ROOT / freight.model)
    return replace(job, entry=_entry(job.entry, freight.paper), model=model)


@cache
def _entry(entry: Entry, paper: str) -> Entry:
    """One for all jobs, so that its claims are read once."""
    return replace(entry, folder=ROOT / paper)


@cache
def _check_versions(torch: str, numpy: str) -> None:
    """A record says what it was made with, and is found again by that."""
    here = environment()
    for name, wanted in (("torch", torch), ("numpy", numpy)):
        if here[name] != wanted:
            raise RequestError(
                f"a worker has {name} {here[name]}, and this machine {wanted}; install the same "
                "version on every node"
            )
