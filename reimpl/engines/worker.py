"""The other end of `processes`: a process that takes jobs from a pipe until the pipe closes.

Started as `python -m reimpl.engines.worker FD`, so that a user's script needs no
`if __name__ == "__main__"`.
"""

import os
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from reimpl.errors import ReimplError


def main(handle: int) -> None:
    """Do jobs as they come."""
    pipe, lock = Connection(handle), Lock()
    jobs: SimpleQueue[Any] = SimpleQueue()

    def send(*message: Any) -> None:
        with lock:
            pipe.send(message)

    def emit(kind: str, contents: Mapping[str, Any]) -> None:
        send("event", kind, dict(contents))

    Thread(target=_listen, args=(pipe, jobs), daemon=True).start()
    from reimpl.context import Stopped
    from reimpl.jobs import execute

    send("ready")
    while (job := jobs.get()) is not None:
        try:
            result = execute(job, emit)
            send(*("taken",) if result is None else ("done", result))
        except ReimplError as error:
            send("refused", error)
        except Stopped:
            return
        except Exception:
            send("broken", traceback.format_exc())


def _listen(pipe: Connection, jobs: "SimpleQueue[Any]") -> None:
    """Pass jobs on; a closed pipe means that the parent is gone, and with it the reason to work."""
    from reimpl.context import STOP

    try:
        while True:
            message = pipe.recv()
            if message == "stop":
                STOP.set()
                jobs.put(None)
            else:
                jobs.put(message)
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
