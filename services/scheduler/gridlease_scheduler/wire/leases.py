"""What nodes see and what they should have, on the wire."""

from __future__ import annotations

from typing import Any

from gridlease.scheduler.v1 import sync_pb2
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh.signatures import verified

from gridlease_scheduler.domain.job import Job
from gridlease_scheduler.domain.lease import Exit, Phase, Sighting
from gridlease_scheduler.ports import HeldLease
from gridlease_scheduler.sync import Desired, Observation, Receipt, Seen

from .reasons import allocation, reason


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
    progress: dict[str, Any] | None = None
    if each.HasField("progress"):
        progress = {field.name: value for field, value in each.progress.ListFields()}
    sighting = Sighting(each.lease, phase, end, each.gone)
    receipt = _receipt(each) if each.HasField("receipt") else None
    return Seen(sighting, each.running, facts, each.checkpoint.id, progress, receipt)


def _receipt(each: sync_pb2.LeaseObservation) -> Receipt:
    told = each.receipt
    pairs = tuple(zip(told.wiped, told.methods, strict=False))
    text = wipe_text(each.lease, told.public_key, pairs, told.verify_time.ToNanoseconds())
    valid = verified(told.public_key, text, told.signature)
    record = told.SerializeToString(deterministic=True)
    return Receipt(record, told.public_key, valid, pairs)


def desired(value: Desired, start_by_ms: int) -> sync_pb2.SyncNodeResponse:
    """What a node should have."""
    return sync_pb2.SyncNodeResponse(
        generation=value.set.generation,
        run=[lease_spec(held, of, start_by_ms) for held, of in value.run],
        stop=[_stop(each) for each in value.stop],
    )


def _stop(held: HeldLease) -> sync_pb2.LeaseStop:
    message = sync_pb2.LeaseStop(lease=held.lease.lease_id, notice_ms=held.lease.notice_ms)
    if held.stop.code:
        message.reason.CopyFrom(reason(held.stop))
    if held.deadline is not None:
        message.deadline.FromDatetime(held.deadline)
    return message


def lease_spec(held: HeldLease, of: Job, start_by_ms: int) -> sync_pb2.LeaseSpec:
    """All that a node needs to run a task, but the right to."""
    spec = job_pb2.JobSpec.FromString(of.spec)
    message = sync_pb2.LeaseSpec(
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
        gang_size=len(of.tasks),
        gang_index=held.index,
        checkpoint=of.resume_from,
        image=spec.image,
        tenancy=spec.tenancy,
        secrets=job_pb2.JobSpec.FromString(of.secrets).secrets,
        type=spec.type,
        idle_stop_ms=spec.idle_stop_ms,
        ssh_keys=spec.ssh_keys,
    )
    if len(of.tasks) > 1:
        message.peers.extend(
            sync_pb2.GangPeer(index=x.index, node=x.node_id, hostname=x.hostname) for x in of.tasks
        )
    if of.promised_until is not None:
        message.promised_until_time.FromDatetime(of.promised_until)
    if spec.HasField("network"):
        message.network.CopyFrom(
            sync_pb2.NetworkGrant(
                guaranteed_mbps=held.network_mbps,
                network_class=spec.network.network_class,
                latency_us=spec.network.latency_us,
                path=held.network_path,
                egress=spec.network.egress,
                egress_to=spec.network.egress_to,
            )
        )
    return message
