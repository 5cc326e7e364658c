"""What waits and what runs, for tests of the queue's policies."""

from gridlease_scheduler.adapters.catalogue import load
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Allocation, Needs, Tier
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.snapshot import Pending, Running

GIB = 2**30
CATALOGUE = load()
A100 = "A100-80GB"
MINUTE = 60_000
HOUR = 60 * MINUTE


def waits(job="j", number=1, *, chips=(A100,), count=1, tier=Tier.ON_DEMAND, need=None, **changes):
    """A job in the queue, one A100 by default; no chips = one core."""
    small = {"cpu_milli": 1_000, "memory_bytes": GIB, "disk_bytes": GIB, "tier": tier}
    accelerator = AcceleratorNeed(chips, count=count) if chips else None
    fields = {
        "tenant": "tenants/t",
        "project": "projects/p",
        "attempt": 1,
        "priority": 50,
        "notice_ms": 30_000,
        "lost_after_ms": 0,
        "needs": Needs(**(small | {"accelerator": accelerator} | (need or {}))),
    }
    return Pending(job=job, number=number, **(fields | changes))


def runs(job, on="n1", devices=("gpu-0",), *, chip=A100, tier=Tier.ON_DEMAND, **changes):
    """A lease; it holds a core and a GiB for each device."""
    many = len(devices)
    fields = {
        "lease_id": f"{job}/{on}",
        "index": 0,
        "tenant": "tenants/t",
        "project": "projects/p",
        "priority": 50,
        "worked_ms": HOUR,
        "notice_ms": 30_000,
        "allocation": Allocation(
            1_000 * many, GIB * many, GIB * many, tuple(devices), chip, 1_000 * many
        ),
    }
    return Running(job=job, node_id=on, tier=tier, **(fields | changes))


def node(name, devices=8, *, chip=A100, running=(), **changes):
    """A node, with what these leases leave of it."""
    mine = [x for x in running if x.node_id == name]
    memory = CATALOGUE.find(chip).memory_bytes
    fields = {
        "site": "s1",
        "cpu_chip": "cpu-x86-64",
        "cpu_milli": 64_000,
        "memory_bytes": 512 * GIB,
        "disk_bytes": 1_000 * GIB,
        "devices": tuple(Device(f"gpu-{i}", chip, "nvidia", memory) for i in range(devices)),
        "used_cpu_milli": sum(x.allocation.cpu_milli for x in mine),
        "used_memory_bytes": sum(x.allocation.memory_bytes for x in mine),
        "used_disk_bytes": sum(x.allocation.disk_bytes for x in mine),
        "held": frozenset(device for x in mine for device in x.allocation.device_ids),
    }
    return Node(name, **(fields | changes))
