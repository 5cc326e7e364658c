"""Reasons, holdings, placements and events on the wire: what many answers carry."""

from __future__ import annotations

from gridlease.type.v1 import fleet_pb2, job_pb2, resources_pb2

from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.ports import Event


def reason(value: Reason) -> job_pb2.Reason:
    """A reason on the wire."""
    return job_pb2.Reason(
        code=value.code, message=value.message, hint=value.hint, evidence=value.evidence
    )


def allocation(value: Allocation) -> resources_pb2.ResourceAllocation:
    """A holding on the wire."""
    return resources_pb2.ResourceAllocation(
        cpu_milli=value.cpu_milli,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        device_ids=value.device_ids,
        chip=value.chip,
        quantity_milli=value.quantity_milli,
    )


def event(value: Event) -> fleet_pb2.Event:
    """An event on the wire."""
    message = fleet_pb2.Event(
        sequence=value.sequence,
        type=value.type,
        entity=value.entity,
        project=value.project,
        reason=reason(value.reason),
        facts=value.facts,
    )
    if value.time is not None:
        message.time.FromDatetime(value.time)
    return message
