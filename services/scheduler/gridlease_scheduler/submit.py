"""Accepts a job: durable before it is answered, once for each request id."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gridlease_kernel.faults import Exists, Invalid
from gridlease_kernel.ids import Ids

from . import names
from .domain.chips import Catalogue
from .domain.job import Job, Needs, NewJob, Reason
from .ports import Event, Store

_SUFFIX = 8  # 40 random bits behind a name that people chose; a clash is simply drawn again
_DRAWS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What a tenant asks for, decoded: spec with defaults filled in, and the hash of the body."""

    tenant: str
    project: str
    request_id: str
    display_name: str
    spec: bytes
    spec_hash: bytes
    needs: Needs
    priority: int
    max_attempts: int
    notice_ms: int
    lost_after_ms: int
    tasks: int
    traceparent: str


class Submit:
    """The use case."""

    def __init__(self, store: Store, catalogue: Catalogue, ids: Ids) -> None:
        self._store = store
        self._catalogue = catalogue
        self._ids = ids

    async def __call__(self, order: Order) -> Job:
        """The job, new or as an earlier request with the same id made it.

        Raises:
            Invalid: UNKNOWN_CHIP, GANGS_NOT_YET, BAD_NAME.
            Exists: REQUEST_ID_REUSED, by a request with another body.
        """
        self._check(order)
        for _ in range(_DRAWS):
            async with self._store.writing() as tx:
                new = self._new(order)
                if await tx.jobs.get(new.name) is not None:
                    continue
                if await tx.jobs.insert(new):
                    event = Event("job.submitted", new.name, new.project, _ACCEPTED)
                    await tx.events.tell(replace(event, facts={"tenant": new.tenant}))
                job = await tx.jobs.by_request(order.project, order.request_id)
            assert job is not None, order.request_id
            if job.spec_hash != order.spec_hash:
                raise _reused(order.request_id, job.name)
            return job
        raise AssertionError("names clash again and again")

    def _check(self, order: Order) -> None:
        names.check_project(order.project)
        names.check_tenant(order.tenant)
        if order.tasks > 1:
            raise Invalid(
                f"{order.tasks} nodes are asked for; jobs of several nodes are not placed yet.",
                reason="GANGS_NOT_YET",
                field="spec.nodes",
                remedy="Ask for one node; gangs come later.",
            )
        accelerator = order.needs.accelerator
        unknown = self._catalogue.unknown(accelerator.chips) if accelerator else None
        if unknown is not None:
            near = ", ".join(unknown.nearest)
            raise Invalid(
                f"No chip is called {unknown.name!r}.",
                reason="UNKNOWN_CHIP",
                field="spec.resources.accelerator.chips",
                remedy=f"Nearest: {near}." if near else "List the offers for the names of chips.",
            )

    def _new(self, order: Order) -> NewJob:
        prefix = order.display_name or "job"
        short = self._ids.new(prefix)[: len(prefix) + 1 + _SUFFIX]
        return NewJob(
            name=f"{order.project}/jobs/{short}",
            project=order.project,
            tenant=order.tenant,
            request_id=order.request_id,
            spec=order.spec,
            spec_hash=order.spec_hash,
            needs=order.needs,
            priority=order.priority,
            max_attempts=order.max_attempts,
            notice_ms=order.notice_ms,
            lost_after_ms=order.lost_after_ms,
            traceparent=order.traceparent,
        )


_ACCEPTED = Reason("ACCEPTED", "It is on record and waits for a place.")


def _reused(request_id: str, name: str) -> Exists:
    return Exists(
        f"The request id {request_id!r} made {name} from another body.",
        reason="REQUEST_ID_REUSED",
        field="request_id",
        remedy="Send the same body again, or a new request_id.",
        metadata={"job": name},
    )
