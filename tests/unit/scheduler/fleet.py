"""Nodes and tasks to plan with."""

from gridlease_scheduler.adapters.catalogue import load
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Needs
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.plan import Pending

GIB = 2**30
CATALOGUE = load()


def node(node_id, *chips, **changes):
    devices = tuple(
        Device(f"gpu-{index}", chip, "nvidia", CATALOGUE.find(chip).memory_bytes)
        for index, chip in enumerate(chips)
    )
    fields = {
        "site": "local",
        "cpu_chip": "cpu-x86-64",
        "cpu_milli": 8_000,
        "memory_bytes": 32 * GIB,
        "disk_bytes": 100 * GIB,
        "devices": devices,
    }
    return Node(node_id, **(fields | changes))


def needs(*chips, count=1, **changes):
    fields = {"cpu_milli": 1_000, "memory_bytes": GIB, "disk_bytes": GIB}
    if chips or "vendor" in changes:
        fields["accelerator"] = AcceleratorNeed(
            chips, count=count, vendor=changes.pop("vendor", "")
        )
    return Needs(**(fields | changes))


def task(name="j", number=1, *, priority=0, need=None):
    return Pending(
        job=name,
        tenant="tenants/demo",
        project="projects/demo",
        attempt=1,
        priority=priority,
        number=number,
        notice_ms=0,
        lost_after_ms=0,
        needs=need or needs(),
    )
