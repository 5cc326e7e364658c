"""A job's cost as protobuf has it."""

from __future__ import annotations

from gridlease.type.v1 import report_pb2

from gridlease_billing.domain.job_cost import JobCost, LeaseCost
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.rpc.shapes import moment


def job_cost(it: JobCost) -> report_pb2.JobCost:
    told = report_pb2.JobCost(
        job=it.job,
        currency=CURRENCY,
        time=moment(it.now_ms),
        charged_nano=it.charged_nano,
        other_nano=it.other_nano,
        credited_nano=it.credited_nano,
        held_nano=it.held_nano,
        rate_nano_per_hour=it.rate_nano_per_hour,
        budget_nano=it.budget_nano,
        available_nano=it.available_nano,
        tenant_rate_nano_per_hour=it.tenant_rate_nano_per_hour,
        grant_left_ms=it.grant_left_ms,
        leases=[_lease(lease, it.now_ms) for lease in it.leases],
        ended_count=it.ended,
    )
    if it.lasts is not None:
        told.lasts_ms, told.lasts_by = it.lasts[0], it.lasts[1].value
    return told


def _lease(it: LeaseCost, now_ms: int) -> report_pb2.LeaseCost:
    return report_pb2.LeaseCost(
        lease=it.lease,
        node=f"nodes/{it.node}",
        chip=it.chip,
        quantity_milli=it.quantity_milli,
        state=it.state,
        segment=it.segment,
        rate_nano_per_hour=it.rate_nano_per_hour,
        charged_nano=it.charged_nano,
        held_nano=it.held_nano,
        grant_end_time=moment(it.ends_at_ms),
        grant_left_ms=it.left_ms(now_ms),
    )
