"""A process that trains its share of one job; `reimpl.sharing` starts it, with a pipe.

It ends with the job, or when the pipe closes, because rank 0 is gone then.
"""

import os
import sys
import traceback
from multiprocessing.connection import Connection
from threading import Thread

from reimpl.errors import ReimplError, RunError


def main(handle: int) -> None:
    """Take part in the training, and say how it ended."""
    pipe = Connection(handle)
    share, job = pipe.recv()
    Thread(target=_listen, args=(pipe,), daemon=True).start()
    try:
        from reimpl.jobs import take_part

        pipe.send(("ready",))
        take_part(job, share)
    except Exception as error:
        known = isinstance(error, ReimplError) and not isinstance(error, RunError)
        pipe.send(("refused", error) if known else ("failed", traceback.format_exc()))
        os._exit(1)  # rank 0 has been told, and there is nothing to tidy
    pipe.send(("done",))


def _listen(pipe: Connection) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
