"""Protobuf to values and back: requests are decoded once, here."""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf import json_format
from gridlease.scheduler.v1 import fleet_pb2 as scheduler_fleet_pb2
from gridlease.scheduler.v1 import job_pb2 as scheduler_job_pb2
from gridlease.scheduler.v1 import sync_pb2
from gridlease.type.v1 import fleet_pb2, job_pb2, resources_pb2

from .domain.chips import AcceleratorNeed
from .domain.job import Allocation, Job, Needs, Purpose, Reason, Tier
from .domain.lease import Exit, Phase, Sighting
from .domain.stock import Stock
from .ports import DeviceRow, Event, HeldLease, InventoryReport, NodeDetail
from .submit import Order
from .sync import Desired, Observation, Seen

_CPU_MILLI = 1_000
_MEMORY_BYTES = 512 * 2**20
_DISK_BYTES = 2**30
_EMULATED = "GRIDLEASE_ALLOW_EMULATED"


class Defaults:
    """What a job gets that it does not ask for."""

    def __init__(self, *, notice_ms: int, lost_after_ms: int, max_attempts: int) -> None:
        self.notice_ms = notice_ms
        self.lost_after_ms = lost_after_ms
        self.max_attempts = max_attempts

    def fill(self, given: job_pb2.JobSpec) -> job_pb2.JobSpec:
        """The spec with every default written out."""
        spec = job_pb2.JobSpec()
        spec.CopyFrom(given)
        spec.type = spec.type or job_pb2.JOB_TYPE_TASK
        spec.tier = spec.tier or job_pb2.TIER_ON_DEMAND
        spec.purpose = spec.purpose or job_pb2.PURPOSE_BATCH
        spec.notice_ms = spec.notice_ms or self.notice_ms
        spec.lost_after_ms = spec.lost_after_ms or self.lost_after_ms
        spec.max_attempts = spec.max_attempts or self.max_attempts
        spec.nodes.min = spec.nodes.min or 1
        spec.nodes.max = max(spec.nodes.max, spec.nodes.min)
        asked = spec.resources
        asked.cpu_milli.min = asked.cpu_milli.min or _CPU_MILLI
        asked.memory_bytes.min = asked.memory_bytes.min or _MEMORY_BYTES
        asked.disk_bytes.min = asked.disk_bytes.min or _DISK_BYTES
        if asked.HasField("accelerator"):
            asked.accelerator.count.min = asked.accelerator.count.min or 1
        return spec


def order(
    request: scheduler_job_pb2.SubmitJobRequest, defaults: Defaults, traceparent: str
) -> Order:
    """A submit as the use case takes it. The hash is over what the caller sent."""
    spec = defaults.fill(request.spec)
    body = scheduler_job_pb2.SubmitJobRequest(tenant=request.tenant, spec=request.spec)
    return Order(
        tenant=request.tenant,
        project=request.project,
        request_id=request.request_id,
        display_name=spec.display_name,
        spec=spec.SerializeToString(deterministic=True),
        spec_hash=hashlib.sha256(body.SerializeToString(deterministic=True)).digest(),
        needs=needs(spec),
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        notice_ms=spec.notice_ms,
        lost_after_ms=spec.lost_after_ms,
        tasks=max(spec.nodes.min, spec.nodes.max),
        traceparent=traceparent,
    )


def needs(spec: job_pb2.JobSpec) -> Needs:
    """What decides where the task may run; of each range the least that will do."""
    asked = spec.resources
    accelerator = None
    if asked.HasField("accelerator"):
        wanted = asked.accelerator
        accelerator = AcceleratorNeed(
            chips=tuple(wanted.chips),
            vendor=wanted.vendor,
            memory_min_bytes=wanted.memory_bytes.min,
            memory_max_bytes=wanted.memory_bytes.max,
            count=wanted.count.min,
        )
    return Needs(
        cpu_milli=asked.cpu_milli.min,
        memory_bytes=asked.memory_bytes.min,
        disk_bytes=asked.disk_bytes.min,
        accelerator=accelerator,
        runtime=spec.runtime,
        purpose=Purpose(job_pb2.Purpose.Name(spec.purpose).removeprefix("PURPOSE_")),
        tier=Tier(job_pb2.Tier.Name(spec.tier).removeprefix("TIER_")),
        budget_nano=spec.budget_nano,
        max_price_nano_per_hour=spec.max_price_nano_per_hour,
        allow_emulated=spec.env.get(_EMULATED) == "1",
    )


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


def job(value: Job) -> job_pb2.Job:
    """A job on the wire."""
    state = job_pb2.JobState.Value(f"JOB_STATE_{value.state}")
    task = job_pb2.Task(
        name=f"{value.name}/tasks/{value.task.index}",
        index=value.task.index,
        state=state,
        attempt=value.task.attempt,
        lease=value.task.lease_id,
        node=f"nodes/{value.task.node_id}" if value.task.node_id else "",
        exit_code=value.task.exit_code,
        ran_ns=value.task.ran_ns,
        reason=reason(value.task.reason),
    )
    if value.task.allocation is not None:
        task.allocation.CopyFrom(allocation(value.task.allocation))
    message = job_pb2.Job(
        name=value.name,
        spec=job_pb2.JobSpec.FromString(value.spec),
        state=state,
        reason=reason(value.reason),
        tasks=[task],
        revision=value.revision,
    )
    message.create_time.FromDatetime(value.created_at)
    if value.placed_at is not None:
        message.place_time.FromDatetime(value.placed_at)
    if value.ready_at is not None:
        message.ready_time.FromDatetime(value.ready_at)
    if value.ended_at is not None:
        message.end_time.FromDatetime(value.ended_at)
    return message


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


def observation(node_id: str, request: sync_pb2.SyncNodeRequest) -> Observation:
    """What a node sees."""
    return Observation(
        node_id=node_id,
        spool_id=request.spool_id,
        boot_id=request.boot_id,
        seen=tuple(_seen(each) for each in request.leases),
        clean={x.device_id: x.state == fleet_pb2.DEVICE_STATE_CLEAN for x in request.devices},
    )


def _seen(each: sync_pb2.LeaseObservation) -> Seen:
    end, facts = None, None
    if each.HasField("exit"):
        code, ran_ns = each.exit.exit_code, max(0, each.exit.ran_ns)
        why = each.exit.reason or "EXITED"
        end = Exit(code, why, ran_ns)
        facts = {
            "code": code,
            "reason": why,
            "message": each.exit.message,
            "ran_ns": ran_ns,
            "memory_peak_bytes": each.exit.memory_peak_bytes,
            "cpu_ns": each.exit.cpu_ns,
        }
    elif each.phase >= sync_pb2.LEASE_PHASE_EXITED:  # ended, and nothing more is known
        end = Exit(-1, "START_LOST", 0)
        facts = {"code": -1, "reason": "START_LOST", "message": "", "ran_ns": 0}
    phase = Phase(min(each.phase, int(Phase.CLEAN)))
    return Seen(Sighting(each.lease, phase, end, each.gone), each.running, facts)


def desired(value: Desired, start_by_ms: int) -> sync_pb2.SyncNodeResponse:
    """What a node should have."""
    return sync_pb2.SyncNodeResponse(
        generation=value.set.generation,
        run=[lease_spec(held, of, start_by_ms) for held, of in value.run],
        stop=[
            sync_pb2.LeaseStop(lease=each.lease_id, notice_ms=each.notice_ms)
            for each in value.set.stop
        ],
    )


def lease_spec(held: HeldLease, of: Job, start_by_ms: int) -> sync_pb2.LeaseSpec:
    """All that a node needs to run a task, but the right to."""
    spec = job_pb2.JobSpec.FromString(of.spec)
    return sync_pb2.LeaseSpec(
        lease=held.lease.lease_id,
        attempt=held.lease.attempt,
        task=held.lease.task_id,
        tenant=of.tenant,
        allocation=allocation(held.allocation),
        commands=spec.commands,
        env=spec.env,
        bundle_digest=spec.bundle_digest,
        outputs=spec.outputs,
        runtime=spec.runtime,
        max_duration_ms=spec.max_duration_ms,
        notice_ms=of.notice_ms,
        traceparent=of.traceparent,
        start_by_ms=start_by_ms,
    )


def inventory(message: fleet_pb2.NodeInventory) -> InventoryReport:
    """What a node says that it has."""
    facts_only = fleet_pb2.NodeInventory()
    facts_only.CopyFrom(message)
    del facts_only.devices[:]
    facts: dict[str, Any] = json_format.MessageToDict(facts_only)
    return InventoryReport(
        cpu_milli=max(0, message.cpu_milli),
        memory_bytes=max(0, message.memory_bytes),
        disk_bytes=max(0, message.disk_bytes),
        emulated=message.emulated,
        facts=facts,
        devices=tuple(
            DeviceRow(
                device_id=x.id,
                chip=x.chip,
                vendor=x.vendor,
                memory_bytes=x.memory_bytes,
                emulated=x.emulated,
                clean=x.state == fleet_pb2.DEVICE_STATE_CLEAN,
            )
            for x in message.devices
        ),
    )


def node(value: NodeDetail) -> fleet_pb2.Node:
    """A node on the wire."""
    row = value.row
    state = "CORDONED" if row.cordoned and row.state == "READY" else row.state
    message = fleet_pb2.Node(
        name=f"nodes/{row.node_id}",
        site=f"sites/{row.site}",
        state=fleet_pb2.NodeState.Value(f"NODE_STATE_{state}"),
        generation=row.generation,
    )
    json_format.ParseDict(row.inventory or {}, message.inventory, ignore_unknown_fields=True)
    for device in value.devices:
        clean = fleet_pb2.DEVICE_STATE_CLEAN if device.clean else fleet_pb2.DEVICE_STATE_DIRTY
        message.inventory.devices.add(
            id=device.device_id,
            chip=device.chip,
            vendor=device.vendor,
            memory_bytes=device.memory_bytes,
            state=clean,
            emulated=device.emulated,
            lease=device.lease_id,
        )
    message.allocated.cpu_milli = value.used_cpu_milli
    message.allocated.memory_bytes = value.used_memory_bytes
    message.allocated.disk_bytes = value.used_disk_bytes
    message.allocated.device_ids.extend(x.device_id for x in value.devices if x.lease_id)
    message.create_time.FromDatetime(row.created_at)
    if row.seen_at is not None:
        message.seen_time.FromDatetime(row.seen_at)
    return message


def offer(value: Stock) -> fleet_pb2.Offer:
    """Stock on the wire: an offer without its price."""
    return fleet_pb2.Offer(
        chip=value.chip,
        site=f"sites/{value.site}",
        total_milli=value.total_milli,
        free_milli=value.free_milli,
        memory_bytes=value.memory_bytes,
        emulated=value.emulated,
    )


def listed(details: list[NodeDetail], limit: int) -> scheduler_fleet_pb2.ListNodesResponse:
    """A page of nodes, and where the next begins."""
    token = details[-1].row.node_id if len(details) == limit else ""
    return scheduler_fleet_pb2.ListNodesResponse(
        nodes=[node(each) for each in details], next_page_token=token
    )
