"""One training shared among processes: which part of each batch is whose, and who they are.

The process that does the job is rank 0. It starts the others as `python -m reimpl.engines.rank`,
keeps a pipe to each, and alone measures and keeps records. When one dies, the others do, too.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import (  # where torch documents them
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from reimpl.errors import ReimplError, RunError

PATIENCE = timedelta(hours=6)
"""How long a process waits for another, which may be measuring; the dead are noticed sooner."""
NOTICE = 3.0
"""Seconds in which a process whose end has stopped the others can be seen to have ended."""
HANGING = 60.0
"""Seconds after the end of one process at which rank 0, should it still wait for it, ends, too."""
GRACE = 10.0
"""Seconds that the others have to end once the work is done."""


class LostRankError(RunError):
    """A process of a shared training was killed; it may go better the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of a training that one process has."""

    rank: int = 0
    devices: int = 1
    """Processes on each node."""
    nodes: int = 1
    host: str = "127.0.0.1"
    """Where the store answers through which they find each other."""
    port: int = 0
    job: int = 0
    """Tells the trainings apart that use one store."""

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @property
    def node(self) -> int:
        """The number of its node."""
        return self.rank // self.devices

    @property
    def local(self) -> int:
        """Its place among those of its node, and the number of its GPU."""
        return self.rank % self.devices

    @property
    def alone(self) -> bool:
        """Whether the training is not shared."""
        return self.world == 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that measures and keeps."""
        return self.rank == 0

    def of(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Every `world`-th row of tensors (N, …); all where there are too few for everybody."""
        if self.alone or len(rows[0]) <= self.rank:
            return tuple(rows)
        return tuple(t[self.rank :: self.world] for t in rows)

    def counts(self, rows: int) -> float:
        """What the mean over its part of `rows` rows counts in a mean over processes."""
        mine = len(range(self.rank, rows, self.world))
        return self.world * mine / rows

    def total(self, value: Tensor) -> Tensor:
        """The mean over all processes, as their gradients are taken."""
        if not self.alone:
            distributed.all_reduce(value)
            value /= self.world
        return value

    def told(self, state: Any, device: torch.device) -> Any:
        """What rank 0 says, with its tensors on this process's device."""
        if self.alone:
            return state
        packed = [_packed(state) if self.leads else b""]
        distributed.broadcast_object_list(packed)
        return torch.load(io.BytesIO(packed[0]), map_location=device, weights_only=False)


ALONE = Share()


def _packed(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


# The processes


@dataclass(slots=True, kw_only=True, eq=False)
class _Other:
    """A process of a shared training, as rank 0 sees it."""

    share: Share
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    said: Any = None
    """How it ended: `done`, or an error of its own."""

    def hear(self, timeout: float | None = 0.0) -> Any:
        """The next thing it says within so many seconds, or None."""
        with suppress(EOFError, OSError):
            if timeout is None or self.pipe.poll(timeout):
                return self.pipe.recv()
        return None


@contextmanager
def shared(job: Any, *, devices: int, device: str) -> Iterator[Share]:
    """Start the other processes of a job's training, and end them with it.

    Yields:
        The share of this process, which is rank 0.

    Raises:
        LostRankError: one of them was killed.
        RunError: one of them failed; the traceback is its own.
        ReimplError: one of them was refused something.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ours = Share(devices=devices, port=store.port)
    shares = [replace(ours, rank=rank) for rank in range(1, devices)]
    with begun(job, shares) as others, joined(ours, device, store):
        try:
            yield ours
        except ReimplError:
            raise
        except Exception as error:
            _blame(others, error)
            raise


@contextmanager
def begun(job: Any, shares: Sequence[Share]) -> Iterator[list[_Other]]:
    """Processes that take part in a job's training, ready to meet; none outlives the block."""
    others: list[_Other] = []
    over = Event()
    try:
        others += [_start(job, share) for share in shares]
        for other in others:
            if (first := other.hear(None)) != ("ready",):
                other.said = first
                _blame(others, None)
        Thread(target=_watch, args=(others, over), daemon=True).start()
        yield others
        _await_end(others)
    finally:
        over.set()
        _end(others)


@contextmanager
def joined(share: Share, device: str, store: Any = None) -> Iterator[None]:
    """Member of the group in which gradients are exchanged."""
    if store is None:
        store = TCPStore(share.host, share.port, is_master=False)
    if device.startswith("cuda"):
        torch.cuda.set_device(share.local)
    distributed.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=PrefixStore(str(share.job), store),
        rank=share.rank,
        world_size=share.world,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _start(job: Any, share: Share) -> _Other:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "reimpl.engines.rank", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what a paper prints, rank 0 prints, too
        start_new_session=True,  # Ctrl-C reaches rank 0 only
    )
    theirs.close()
    with suppress(OSError):  # one that has gone is noticed when it is heard
        ours.send((share, job))
    return _Other(share=share, process=process, pipe=ours)


def _blame(others: Sequence[_Other], error: BaseException | None) -> None:
    """Raise what one of the others died of, if one did.

    Raises:
        RunError: as for `shared`.
    """
    until = time.monotonic() + NOTICE
    while time.monotonic() < until:
        for other in others:
            _judge(other, error)
        time.sleep(0.05)
    if error is None:
        raise LostRankError("a process of the shared training ended before it began")


def _judge(other: _Other, error: BaseException | None) -> None:
    ended = other.process.poll()
    said = other.said = other.said or other.hear()
    who = f"rank {other.share.rank} of {other.share.world}"
    if said and said[0] == "refused":
        raise said[1] from error
    if said and said[0] == "failed":
        raise RunError(f"{who} failed:\n{said[1]}") from error
    if ended is not None and said is None:
        how = signal.Signals(-ended).name if ended < 0 else f"status {ended}"
        raise LostRankError(f"{who} ended with {how}") from error


def _watch(others: Sequence[_Other], over: Event) -> None:
    """End this process when it waits forever for one that has gone: a GPU's group may do so."""
    while not over.wait(1.0):
        if any(other.process.poll() not in (None, 0) for other in others):
            if not over.wait(HANGING):
                os._exit(1)
            return


def _await_end(others: Sequence[_Other]) -> None:
    until = time.monotonic() + GRACE
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.process.wait(max(0.05, until - time.monotonic()))


def _end(others: Sequence[_Other]) -> None:
    for other in others:
        other.process.kill()
    for other in others:
        other.process.wait()
        other.pipe.close()
