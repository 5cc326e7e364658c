"""Jobs on the wire: what a tenant submits, decoded once, and what it is shown."""

from __future__ import annotations

import hashlib

from gridlease.scheduler.v1 import job_pb2 as scheduler_job_pb2
from gridlease.type.v1 import job_pb2, resources_pb2
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh.signatures import verified

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import (
    Extent,
    Job,
    JobState,
    Needs,
    NetworkClass,
    NetworkNeed,
    Purpose,
    Software,
    Span,
    Task,
    Tenancy,
    Tier,
)
from gridlease_scheduler.domain.lease import State
from gridlease_scheduler.submit import Asked, Order

from .reasons import allocation, reason

_CPU_MILLI = 1_000
_MEMORY_BYTES = 512 * 2**20
_DISK_BYTES = 2**30
_IDLE_AFTER_MS = 300_000
_EMULATED = "GRIDLEASE_ALLOW_EMULATED"
_TENANCIES = {
    job_pb2.TENANCY_EXCLUSIVE_DEVICE: Tenancy.EXCLUSIVE_DEVICE,
    job_pb2.TENANCY_EXCLUSIVE_HOST: Tenancy.EXCLUSIVE_HOST,
}


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
        spec.span = spec.span or job_pb2.SPAN_ANY
        spec.preemption_policy = spec.preemption_policy or job_pb2.PREEMPTION_POLICY_REQUEUE
        spec.notice_ms = spec.notice_ms or self.notice_ms
        spec.lost_after_ms = spec.lost_after_ms or self.lost_after_ms
        spec.max_attempts = spec.max_attempts or self.max_attempts
        spec.nodes.min = spec.nodes.min or 1
        spec.nodes.max = max(spec.nodes.max, spec.nodes.min)
        if spec.HasField("autoscale"):
            spec.autoscale.idle_after_ms = spec.autoscale.idle_after_ms or _IDLE_AFTER_MS
        if spec.HasField("network"):
            network = spec.network
            network.network_class = network.network_class or job_pb2.NETWORK_CLASS_STANDARD
        asked = spec.resources
        asked.cpu_milli.min = asked.cpu_milli.min or _CPU_MILLI
        asked.memory_bytes.min = asked.memory_bytes.min or _MEMORY_BYTES
        asked.disk_bytes.min = asked.disk_bytes.min or _DISK_BYTES
        for wanted in (asked.accelerator, *asked.alternatives):
            if asked.HasField("accelerator"):
                wanted.count.min = wanted.count.min or 1
        return spec


def order(
    request: scheduler_job_pb2.SubmitJobRequest, defaults: Defaults, traceparent: str
) -> Order:
    """A submit as the use case takes it. The hash is over what the caller sent."""
    spec = defaults.fill(request.spec)
    body = scheduler_job_pb2.SubmitJobRequest(tenant=request.tenant, spec=request.spec)
    secrets = job_pb2.JobSpec(secrets=spec.secrets)
    for name in spec.secrets:
        spec.secrets[name] = ""  # whoever reads the spec learns the names
    return Order(
        asked=asked(request.tenant, request.project, spec),
        request_id=request.request_id,
        display_name=spec.display_name,
        spec=spec.SerializeToString(deterministic=True),
        secrets=secrets.SerializeToString(deterministic=True),
        spec_hash=hashlib.sha256(body.SerializeToString(deterministic=True)).digest(),
        max_attempts=spec.max_attempts,
        lost_after_ms=spec.lost_after_ms,
        traceparent=traceparent,
    )


def asked(tenant: str, project: str, spec: job_pb2.JobSpec) -> Asked:
    """What decides where and when a job may run. ``spec`` has its defaults filled in."""
    return Asked(
        tenant=tenant,
        project=project,
        needs=needs(spec),
        extent=extent(spec),
        priority=spec.priority,
        notice_ms=spec.notice_ms,
        batch_size=(spec.batch_size.min, spec.batch_size.max),
    )


def extent(spec: job_pb2.JobSpec) -> Extent:
    """How many tasks, for how long, and how they may be interrupted."""
    follows_load = spec.HasField("autoscale")
    least, most = spec.nodes.min, spec.nodes.max
    if follows_load:  # it begins with a replica, also where it may rest
        least, most = max(1, spec.autoscale.min_replicas), spec.autoscale.max_replicas
    return Extent(
        tasks=least,
        tasks_min=least,
        tasks_max=most,
        longest_ms=spec.max_duration_ms,
        expected_ms=spec.expected_duration_ms,
        min_runtime_ms=spec.min_runtime_ms,
        requeue=spec.preemption_policy != job_pb2.PREEMPTION_POLICY_FAIL,
        reservation=spec.reservation,
        follows_load=follows_load,
    )


def needs(spec: job_pb2.JobSpec) -> Needs:
    """What decides where the tasks may run; of each range the least that will do."""
    resources = spec.resources
    wanted = resources.accelerator if resources.HasField("accelerator") else None
    return Needs(
        cpu_milli=resources.cpu_milli.min,
        memory_bytes=resources.memory_bytes.min,
        disk_bytes=resources.disk_bytes.min,
        accelerator=_accelerator(wanted) if wanted is not None else None,
        runtime=spec.runtime,
        purpose=Purpose(job_pb2.Purpose.Name(spec.purpose).removeprefix("PURPOSE_")),
        tier=Tier(job_pb2.Tier.Name(spec.tier).removeprefix("TIER_")),
        budget_nano=spec.budget_nano,
        max_price_nano_per_hour=spec.max_price_nano_per_hour,
        allow_emulated=spec.env.get(_EMULATED) == "1",
        alternatives=tuple(_accelerator(each) for each in resources.alternatives),
        alternatives_ordered=resources.alternatives_ordered,
        span=Span(job_pb2.Span.Name(spec.span).removeprefix("SPAN_")),
        latency_us=spec.latency_target_us,
        software=Software(
            toolkit=spec.software.toolkit,
            version=spec.software.version,
            targets=tuple(spec.software.targets),
            carries_compat=spec.software.carries_compat,
        ),
        network=_network(spec.network),
        low_carbon=spec.low_carbon,
        deferrable_ms=spec.deferrable_ms,
        tenancy=_TENANCIES.get(spec.tenancy, Tenancy.SHARED),
        image=spec.image,
    )


def _accelerator(wanted: resources_pb2.AcceleratorRequest) -> AcceleratorNeed:
    return AcceleratorNeed(
        chips=tuple(wanted.chips),
        vendor=wanted.vendor,
        memory_min_bytes=wanted.memory_bytes.min,
        memory_max_bytes=wanted.memory_bytes.max,
        count=wanted.count.min,
    )


def _network(wanted: job_pb2.NetworkRequest) -> NetworkNeed:
    given = wanted.network_class or job_pb2.NETWORK_CLASS_STANDARD
    return NetworkNeed(
        guaranteed_mbps=wanted.guaranteed_mbps,
        network_class=NetworkClass(job_pb2.NetworkClass.Name(given).removeprefix("NETWORK_CLASS_")),
        latency_us=wanted.latency_us,
    )


def job(value: Job) -> job_pb2.Job:
    """A job on the wire."""
    message = job_pb2.Job(
        name=value.name,
        spec=job_pb2.JobSpec.FromString(value.spec),
        state=state_of(value.state),
        reason=reason(value.reason),
        tasks=[_task(value, each) for each in value.tasks],
        revision=value.revision,
        evictions=value.evicted,
    )
    message.create_time.FromDatetime(value.created_at)
    if value.placed_at is not None:
        message.place_time.FromDatetime(value.placed_at)
    if value.ready_at is not None:
        message.ready_time.FromDatetime(value.ready_at)
    if value.ended_at is not None:
        message.end_time.FromDatetime(value.ended_at)
    return message


def state_of(value: JobState) -> job_pb2.JobState.ValueType:
    """A job's state on the wire."""
    return job_pb2.JobState.Value(f"JOB_STATE_{value}")


def _task(of: Job, value: Task) -> job_pb2.Task:
    task = job_pb2.Task(
        name=f"{of.name}/tasks/{value.index}",
        index=value.index,
        state=_task_state(of, value),
        attempt=value.attempt,
        lease=value.lease_id,
        node=f"nodes/{value.node_id}" if value.node_id else "",
        exit_code=value.exit_code,
        ran_ns=value.ran_ns,
        reason=reason(value.reason),
    )
    if value.allocation is not None:
        task.allocation.CopyFrom(allocation(value.allocation))
    if value.checkpoint is not None:
        task.checkpoint.id = value.checkpoint.id
        task.checkpoint.create_time.FromDatetime(value.checkpoint.created_at)
    if value.receipt:
        task.receipt.CopyFrom(_receipt(value))
    return task


def _receipt(of: Task) -> job_pb2.WipeReceipt:
    """The node's record, whose first fields are the same, with what we know of it."""
    told = job_pb2.WipeReceipt.FromString(of.receipt)
    pairs = tuple(zip(told.wiped, told.methods, strict=False))
    text = wipe_text(of.lease_id, told.public_key, pairs, told.verify_time.ToNanoseconds())
    told.lease = of.lease_id
    told.valid = told.public_key == of.node_key and verified(of.node_key, text, told.signature)
    return told


def _task_state(of: Job, value: Task) -> job_pb2.JobState.ValueType:
    """Where the job stands; but a member may have ended while others run."""
    if len(of.tasks) > 1 and not of.state.ended and value.lease_state is State.CLOSED:
        if of.state is JobState.PENDING:
            return state_of(of.state)
        done = value.reason.code == "EXITED" and value.exit_code == 0
        return state_of(JobState.SUCCEEDED if done else JobState.FAILED)
    return state_of(of.state)
