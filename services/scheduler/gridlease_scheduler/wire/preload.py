"""What jobs ran on, and what a node should have at hand, on the wire."""

from __future__ import annotations

from gridlease.scheduler.v1 import sync_pb2
from gridlease.type.v1 import job_pb2

from gridlease_scheduler.domain.preload import Use, Wish

_MODULES = "GRIDLEASE_WARM_MODULES"  # of a job's variables: what frozen sandboxes have imported
_MOST_MODULES = 16
_ALONE = (job_pb2.TENANCY_EXCLUSIVE_DEVICE, job_pb2.TENANCY_EXCLUSIVE_HOST)


def use(tenant: str, spec: bytes, chip: str, accelerated: bool) -> Use:
    """What a job's task stands on; ``chip``: of its accelerator."""
    job = job_pb2.JobSpec.FromString(spec)
    modules = (each.strip() for each in job.env.get(_MODULES, "").split(","))
    networked = job.network.egress not in (job_pb2.EGRESS_UNSPECIFIED, job_pb2.EGRESS_NONE)
    return Use(
        tenant,
        job.image,
        job.runtime,
        chip,
        job.resources.cpu_milli.min,
        job.resources.memory_bytes.min,
        job.resources.disk_bytes.min,
        not (accelerated or networked or job.tenancy in _ALONE),
        tuple(each for each in modules if each)[:_MOST_MODULES],
    )


def preload(wish: Wish) -> sync_pb2.Preload:
    """A wish, to a node."""
    return sync_pb2.Preload(
        image=wish.image,
        runtime=wish.runtime,
        tenant=wish.tenant,
        created=wish.created,
        frozen=wish.frozen,
        modules=wish.modules,
        cpu_milli=wish.cpu_milli,
        memory_bytes=wish.memory_bytes,
        disk_bytes=wish.disk_bytes,
    )
