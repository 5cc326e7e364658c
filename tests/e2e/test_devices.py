"""A GPU (emulated) through the whole platform: lent, used, wiped, signed for, and lent again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_sdk import Client
from gridlease_testkit.waiting import eventually

from tests.e2e.standin import StandIn, gpus
from tests.e2e.world import ENDED, QUICK, World, draft, state_is

_MARK = "left-by-the-first-tenant"
_WRITE = f"printf {_MARK} | dd of=/dev/nvidia0 bs=4096 seek=512 oflag=seek_bytes conv=notrunc,fsync"
_FIND = f"if grep -qa {_MARK} /dev/nvidia0; then echo found; else echo nothing; fi"
_GPU = {"cpu": 0.25, "memory": "128MB", "disk": "64MB", "gpu": "H100:1"}


@pytest.fixture
def host() -> Iterator[StandIn]:
    with gpus() as made:
        yield made


@pytest.fixture
def world(folder: Path, host: StandIn) -> Iterator[World]:
    timing = {**QUICK, "GRIDLEASE_DEVICE_ROOT": str(host.root)}
    one = World(folder / "state", timing=timing)
    one.start()
    yield one
    one.stop()


@contextlib.asynccontextmanager
async def another(world: World) -> AsyncIterator[Client]:
    """A second tenant, with money."""
    async with world.operator() as operator:
        await operator.create_tenant("second-tenant")
        await operator.create_credit("tenants/second-tenant", 10**12)
        key = await operator.create_api_key(project="projects/second-tenant")
    async with Client.connect(f"127.0.0.1:{world.port}", key.secret) as client:
        yield client


async def device(world: World) -> fleet_pb2.Device:
    """The node's only accelerator, as the scheduler has it."""
    async with world.operator() as operator:
        (node,) = await operator.list_nodes()
        (found,) = node.inventory.devices
        return found


async def free(world: World) -> None:
    async def clean() -> bool:
        with contextlib.suppress(ValueError):
            return (await device(world)).state == fleet_pb2.DEVICE_STATE_CLEAN
        return False

    await eventually(clean, 60.0, "the device is in stock")


async def said(client: Client, job: job_pb2.Job) -> str:
    return b"".join([piece async for piece in client.logs(job.name)]).decode()


async def on_offer(client: Client) -> int:
    found = [it for it in await client.list_offers() if it.chip.startswith("H100")]
    return sum(it.free_milli for it in found if it.tier == job_pb2.TIER_ON_DEMAND)


async def stocked(client: Client) -> bool:
    return await on_offer(client) == 1_000


@pytest.mark.slow
async def test_a_device_passes_from_tenant_to_tenant(world: World, host: StandIn) -> None:
    await free(world)
    assert (await device(world)).emulated
    async with world.tenant() as first, another(world) as second:
        await eventually(lambda: stocked(first), 30.0, "the device is on offer")
        job = await first.submit(draft(_WRITE, _FIND, resources=_GPU))
        ended = await state_is(first, job.name, *ENDED)
        assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
        assert "found" in await said(first, ended)
        await _receipt(world, first, job.name)
        assert _MARK.encode() not in host.memory(0)
        await free(world)
        host.set("MOCK_CUDA_FAULT", "stuck")
        job = await second.submit(draft(_FIND, resources=_GPU))
        ended = await state_is(second, job.name, *ENDED)
        assert "nothing" in await said(second, ended), "the second tenant finds the first one's"
        await _out_of_stock(world, second, host)


async def _receipt(world: World, client: Client, name: str) -> None:
    """The node has signed for it, and anybody can check that."""

    async def told() -> bool:
        return (await client.get_job(name)).tasks[0].HasField("receipt")

    await eventually(told, 30.0, "there is a receipt")
    task = (await client.get_job(name)).tasks[0]
    methods = dict(zip(task.receipt.wiped, task.receipt.methods, strict=True))
    assert methods["GPU-mock-0"] == "emulated-pattern-readback"
    assert methods["scratch"] == "deleted"
    assert (task.receipt.lease, task.receipt.valid) == (task.lease, True)
    saved = world.state / "job.json"
    shown = await asyncio.to_thread(_gridlease, world, "--json", "show", name)
    saved.write_text(shown.stdout)
    for what in (name, str(saved)):
        done = await asyncio.to_thread(_gridlease, world, "verify-receipt", what)
        assert done.returncode == 0, done.stderr
        assert "GPU-mock-0 by emulated-pattern-readback" in done.stdout
    forged = json.loads(shown.stdout)
    forged["tasks"][0]["receipt"]["methods"][0] = "pattern-readback"
    saved.write_text(json.dumps(forged))
    done = await asyncio.to_thread(_gridlease, world, "verify-receipt", str(saved))
    assert done.returncode == 3, done.stdout
    assert "RECEIPT_INVALID" in done.stderr or "does not hold" in done.stderr


async def _out_of_stock(world: World, client: Client, host: StandIn) -> None:
    """What could not be wiped is lent to nobody, and it is said why; then it is wiped."""

    async def ails() -> bool:
        return (await device(world)).ailment.startswith("scrub-failed")

    await eventually(ails, 60.0, "the device ails")
    assert "not what was written" in (await device(world)).ailment
    assert await on_offer(client) == 0
    job = await client.submit(draft("true", resources=_GPU))

    async def waits() -> job_pb2.Job | None:
        now = await client.get_job(job.name)
        return now if now.reason.code else None

    waiting = await eventually(waits, 30.0, "the job says why it waits")
    assert waiting is not None
    assert waiting.state == job_pb2.JOB_STATE_PENDING
    assert waiting.reason.code == "DEVICE_AILING", waiting.reason
    host.unset("MOCK_CUDA_FAULT")
    ended = await state_is(client, job.name, *ENDED, timeout_s=90.0)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
    assert not (await device(world)).ailment
    await eventually(lambda: stocked(client), 60.0, "it is on offer again")


def _gridlease(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gridlease_cli", *words],
        env={**os.environ, "GRIDLEASE_CLIENT_FILE": str(world.state / "client.json")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
