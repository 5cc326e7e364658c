"""Accepts a job: durable before it is answered, once for each request id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gridlease_kernel.faults import Exists, Invalid
from gridlease_kernel.ids import Ids

from . import names
from .domain.chips import Catalogue
from .domain.job import Extent, Job, Needs, NewJob, Reason, Span
from .ports import Event, Store, Tx
from .together import Together

_SUFFIX = 8  # 40 random bits behind a name that people chose; a clash is simply drawn again
_DRAWS = 3
_MOST = 128  # jobs accepted in one transaction
_LANES = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides where and when a job may run, decoded, with its defaults filled in."""

    tenant: str
    project: str
    needs: Needs
    extent: Extent
    priority: int
    notice_ms: int
    batch_size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """A job to accept: its spec with defaults filled in, and the hash of the body."""

    asked: Asked
    request_id: str
    display_name: str
    spec: bytes
    spec_hash: bytes
    max_attempts: int
    lost_after_ms: int
    traceparent: str
    secrets: bytes = field(default=b"", repr=False)


class Submit:
    """The use case."""

    def __init__(self, store: Store, catalogue: Catalogue, ids: Ids) -> None:
        self._store = store
        self._catalogue = catalogue
        self._ids = ids
        self._together = Together(self._accept, _MOST, _LANES)

    async def __call__(self, order: Order) -> Job:
        """The job, new or as an earlier request with the same id made it.

        Raises:
            Invalid: UNKNOWN_CHIP, BAD_NAME, BAD_BATCH_SIZE, BAD_MIN_RUNTIME, ELASTIC_ON_ONE_HOST,
                NO_RESERVATION.
            Exists: REQUEST_ID_REUSED, by a request with another body.
        """
        check(order.asked, self._catalogue)
        for _ in range(_DRAWS):
            job = await self._together(order)
            if job is None:
                continue
            if job.spec_hash != order.spec_hash:
                raise _reused(order.request_id, job.name)
            return job
        raise AssertionError("names clash again and again")

    async def _accept(self, orders: Sequence[Order]) -> list[Job | None]:
        """Those that come at the same time, in one transaction; None = its name was taken."""
        new = [self._new(order) for order in orders]
        async with self._store.writing() as tx:
            for order in orders:
                await check_reservation(tx, order.asked)
            accepted = await tx.jobs.accept(new)
            fresh = [job for job in new if job.name in accepted]
            told = [Event("job.submitted", job.name, job.project, _ACCEPTED) for job in fresh]
            told = [
                replace(event, facts={"tenant": job.tenant})
                for event, job in zip(told, fresh, strict=True)
            ]
            await tx.events.tell_all(told, [job.traceparent for job in fresh])
            return [
                accepted.get(job.name) or await tx.jobs.by_request(job.project, job.request_id)
                for job in new
            ]

    def _new(self, order: Order) -> NewJob:
        prefix, asked = order.display_name or "job", order.asked
        short = self._ids.new(prefix)[: len(prefix) + 1 + _SUFFIX]
        return NewJob(
            name=f"{asked.project}/jobs/{short}",
            project=asked.project,
            tenant=asked.tenant,
            request_id=order.request_id,
            spec=order.spec,
            spec_hash=order.spec_hash,
            needs=asked.needs,
            priority=asked.priority,
            max_attempts=order.max_attempts,
            notice_ms=asked.notice_ms,
            lost_after_ms=order.lost_after_ms,
            traceparent=order.traceparent,
            extent=asked.extent,
            secrets=order.secrets,
        )


def check(asked: Asked, catalogue: Catalogue) -> None:
    """What can be said against a job without looking at the platform's state.

    Raises:
        Invalid: with the field and what to write instead.
    """
    names.check_project(asked.project)
    names.check_tenant(asked.tenant)
    needs, extent = asked.needs, asked.extent
    if needs.accelerator is not None:
        _known(catalogue, needs.accelerator.chips, "accelerator")
    for index, other in enumerate(needs.alternatives):
        _known(catalogue, other.chips, f"alternatives[{index}]")
    if asked.batch_size != (0, 0) and not extent.elastic:
        raise Invalid(
            "A range of batch sizes is for elastic jobs: nodes.max must be above nodes.min.",
            reason="BAD_BATCH_SIZE",
            field="spec.batch_size",
            remedy="Give nodes a range, such as 1..8, or leave batch_size out.",
        )
    if extent.min_runtime_ms and extent.longest_ms and extent.min_runtime_ms > extent.longest_ms:
        raise Invalid(
            "min_runtime is longer than max_duration.",
            reason="BAD_MIN_RUNTIME",
            field="spec.min_runtime_ms",
            remedy="Make it shorter than max_duration.",
        )
    if extent.elastic and needs.span is Span.HOST:
        raise Invalid(
            "An elastic job grows over nodes; on one host it has one task.",
            reason="ELASTIC_ON_ONE_HOST",
            field="spec.span",
            remedy="Leave span out, or give nodes one number.",
        )


async def check_reservation(tx: Tx, asked: Asked) -> None:
    """Is the reservation that it names the project's own, and does it still stand?

    Raises:
        Invalid: NO_RESERVATION, the same whether it never was, or is another project's.
    """
    name = asked.extent.reservation
    if not name:
        return
    found = await tx.capacity.reservation(name)
    if found is None or found.reservation.project != asked.project or found.cancelled_at:
        raise Invalid(
            f"There is no reservation {name!r} of this project.",
            reason="NO_RESERVATION",
            field="spec.reservation",
            remedy="`gridlease reservations` lists those of your project.",
        )


_ACCEPTED = Reason("ACCEPTED", "It is on record and waits for a place.")


def _known(catalogue: Catalogue, chips: tuple[str, ...], field: str) -> None:
    unknown = catalogue.unknown(chips)
    if unknown is not None:
        near = ", ".join(unknown.nearest)
        raise Invalid(
            f"No chip is called {unknown.name!r}.",
            reason="UNKNOWN_CHIP",
            field=f"spec.resources.{field}.chips",
            remedy=f"Nearest: {near}." if near else "List the offers for the names of chips.",
        )


def _reused(request_id: str, name: str) -> Exists:
    return Exists(
        f"The request id {request_id!r} made {name} from another body.",
        reason="REQUEST_ID_REUSED",
        field="request_id",
        remedy="Send the same body again, or a new request_id.",
        metadata={"job": name},
    )
