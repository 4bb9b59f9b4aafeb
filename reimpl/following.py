"""A node that takes part in trainings which node 0 plans and records."""

from collections.abc import Callable
from dataclasses import replace

from reimpl import registry
from reimpl.errors import RequestError
from reimpl.evidence import current_keys
from reimpl.jobs import Job
from reimpl.keys import changed
from reimpl.planning import Request
from reimpl.registry import Entry


def follow(request: Request) -> None:
    """Train shares of what node 0 trains, with this node's code and data, until that is over.

    Raises:
        ReimplError: node 0 has gone.
    """
    from reimpl import sharing

    sharing.follow(_moved_in(request, registry.find(request.paper, request.papers)))


def _moved_in(request: Request, entry: Entry) -> Callable[[Job, int], Job]:
    def moved_in(job: Job, node: int) -> Job:
        """The job with the code that lies here.

        Raises:
            RequestError: it is not the code that node 0 has.
        """
        variant = entry.claims.variant(job.variant)
        keys = current_keys(entry, variant, "train", overrides=job.overrides, model=request.model)
        key, parts = keys(job.seeds[0])
        if key != job.keys[0]:
            odd = "; ".join(changed(dict(job.key_parts[0]), parts))
            raise RequestError(f"node {node} differs from node 0: {odd}")
        return replace(job, entry=entry, model=request.model)

    return moved_in
