"""Dry runs and explanations on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from gridlease.scheduler.v1 import job_pb2
from gridlease.type.v1 import capacity_pb2

from gridlease_scheduler.domain.forecast import Option
from gridlease_scheduler.domain.job import Allocation, JobState, Reason
from gridlease_scheduler.domain.plan import Placed
from gridlease_scheduler.explain import Explanation
from gridlease_scheduler.preview import Previewed

from .jobs import state_of
from .reasons import allocation, reason


def planned(value: Previewed) -> job_pb2.PlanJobResponse:
    """What would become of a job."""
    found, decision = value.forecast, value.forecast.decision
    answer = job_pb2.PlanJobResponse(
        placeable=isinstance(decision, Placed),
        reason=reason(decision.reason),
        remedies=found.remedies,
        rate_nano_per_hour=found.rate_nano_per_hour or 0,
        amount_nano=found.amount_nano or 0,
        duration_ms=found.duration_ms,
        currency=value.currency if found.rate_nano_per_hour is not None else "",
        options=[_option(each, value.currency) for each in found.options],
        makes_room=value.makes_room,
    )
    if isinstance(decision, Placed):
        answer.placements.extend(
            _placement(x.index, x.node_id, x.allocation, None, value.sites)
            for x in decision.members
        )
    else:
        answer.nodes_ruled_out.update(decision.ruled_out)
    if found.earliest_ms is not None:
        answer.earliest_start_time.FromMilliseconds(found.earliest_ms)
    return answer


def explained(value: Explanation) -> job_pb2.ExplainJobResponse:
    """Why a job stands where it stands."""
    # Of a job that waits again the tasks still tell of the attempt before.
    placed = value.job.tasks if value.job.state is not JobState.PENDING else ()
    rate = sum(task.rate_nano_per_hour for task in placed)
    answer = job_pb2.ExplainJobResponse(
        state=state_of(value.job.state),
        reason=reason(value.reason),
        nodes_ruled_out=value.ruled_out,
        remedies=value.remedies,
        placements=[
            _placement(x.index, x.node_id, x.allocation, x.reason, value.sites)
            for x in placed
            if x.allocation is not None
        ],
        options=[_option(each, value.currency) for each in value.options],
        rate_nano_per_hour=rate,
        currency=value.currency if rate or value.options else "",
    )
    if value.earliest_ms is not None:
        answer.earliest_start_time.FromMilliseconds(value.earliest_ms)
    return answer


def _placement(
    index: int,
    node_id: str,
    held: Allocation,
    why: Reason | None,
    sites: Mapping[str, str],
) -> capacity_pb2.Placement:
    message = capacity_pb2.Placement(index=index, node=f"nodes/{node_id}")
    if node_id in sites:
        message.site = f"sites/{sites[node_id]}"
    message.allocation.CopyFrom(allocation(held))
    if why is not None:
        message.reason.CopyFrom(reason(why))
    return message


def _option(value: Option, currency: str) -> capacity_pb2.ChipOption:
    message = capacity_pb2.ChipOption(
        chip=value.chip,
        placeable=value.placeable,
        rate_nano_per_hour=value.rate_nano_per_hour or 0,
        amount_nano=value.amount_nano or 0,
        currency=currency if value.rate_nano_per_hour is not None else "",
        duration_ms=value.duration_ms,
        relative_throughput_milli=value.relative_milli,
        asked_for=value.asked_for,
    )
    if value.reason.code:
        message.reason.CopyFrom(reason(value.reason))
    if value.earliest_ms is not None:
        message.earliest_start_time.FromMilliseconds(value.earliest_ms)
    return message
