"""Parts of a device that separate nobody (time slices, MPS; emulated): one tenant's at a time."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_testkit.waiting import eventually

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent

pytestmark = pytest.mark.root
BUSY = "while true; do sleep 0.05; done"
_FAMILY = """
name = "slices"
family = "gpu"
vendor = "nvidia"
kind = "slices.example/gpu"
present = ["sys/class/slices"]
weaker = "time slices: memory, faults and time are shared"
[list]
glob = "sys/class/slices/slice*"
[list.fields]
id = {}
index = { pattern = 'slice(\\d+)' }
part_of = { file = "of" }
apart = { literal = "no" }
[hand]
nodes = ["/dev/slice{index}"]
[scrub]
by = "file"
path = "/memory{index}"
"""


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gridlease-slices-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "families").mkdir()
    (folder / "families/slices.toml").write_text(_FAMILY)
    (folder / "dev").mkdir()
    for index in range(3):
        place = folder / f"sys/class/slices/slice{index}"
        place.mkdir(parents=True)
        (place / "of").write_text("card0\n")
        (folder / f"memory{index}").write_bytes(b"\1" * 4096)
        node = folder / f"dev/slice{index}"
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 229))
        node.chmod(0o666)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def sharing(
    nats: Any, centre: centres.Centre, state_folder: Path, root: Path
) -> AsyncIterator[Agent]:
    centres.enrol(nats, state_folder)
    one = Agent(state_folder, device_root=str(root), device_families=str(root / "families"))
    await one.start()
    yield one
    one.stop()
    one.end_tasks()


def _lent(centre: centres.Centre) -> bool:
    devices = centre.inventories[-1].devices if centre.inventories else ()
    return len(devices) == 3 and all(x.state == fleet_pb2.DEVICE_STATE_CLEAN for x in devices)


def _want(centre: centres.Centre, lease: str, tenant: str, device: str) -> None:
    spec = centre.want(lease, [BUSY], tenant=f"tenants/{tenant}")
    spec.allocation.device_ids.append(device)


async def test_a_second_tenant_waits_and_the_first_may_share_with_itself(
    centre: centres.Centre, sharing: Agent
) -> None:
    await eventually(lambda: _lent(centre), 30)
    told = {device.id: device for device in centre.inventories[-1].devices}
    assert {device.part_of for device in told.values()} == {"card0"}
    assert all(device.emulated for device in told.values())
    _want(centre, "ls-1", "first", "slice0")
    await eventually(lambda: centre.running("ls-1"), 20)
    _want(centre, "ls-2", "second", "slice1")
    await eventually(lambda: "whose parts separate nobody" in sharing.log.read_text(), 20)
    _want(centre, "ls-3", "first", "slice2")
    await eventually(lambda: centre.running("ls-3"), 20)
    assert not centre.running("ls-2")
    for lease in ("ls-1", "ls-3"):
        assert not centre.running("ls-2")
        centre.end(lease)
        await eventually(lambda lease=lease: centre.gone(lease), 20)
    await eventually(lambda: centre.running("ls-2"), 20)


async def test_a_start_without_free_cores_is_lost_and_not_failed(
    centre: centres.Centre, sharing: Agent
) -> None:
    """The scheduler counts cores; where it was wrong, the task is placed again."""
    spec = centre.want("ls-1", ["echo never"])
    spec.tenancy = job_pb2.TENANCY_EXCLUSIVE_DEVICE
    spec.allocation.cpu_milli = 1000 * 4096
    await eventually(lambda: centre.exit("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert ended.reason == "START_LOST", ended
    assert "whole cores" in ended.message
