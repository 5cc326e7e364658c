"""A node cut off from the broker: the shim stops the task in time; nobody pays for more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_sdk import Client
from gridlease_testkit.waiting import eventually

from tests.e2e.link import Link
from tests.e2e.world import ENDED, QUICK, World, draft, prints, state_is

# A platform of its own, and grants that must end: a minute. By default the same is asked of an
# agent alone, in tests/integration/agent/test_survival.py.
pytestmark = pytest.mark.slow
SECOND_NS = 1_000_000_000
GRACE_NS = int(QUICK["GRIDLEASE_GRACE_MS"]) * 1_000_000
DEAF = "trap '' TERM; echo begin; while :; do sleep 0.1; done"
POLITE = "trap 'echo told; exit 0' TERM; echo begin; while :; do sleep 0.1; done"


def lease_folder(world: World, lease: str) -> Path:
    return world.state / "node" / "leases" / lease


def deadline_ns(folder: Path) -> int:
    return int(json.loads((folder / "deadline.json").read_text())["boottime_ns"])


async def ended_ns(world: World, lease: str) -> int:
    """When the sandbox ended by its keeper's record; the folder may have been kept already."""
    places = [lease_folder(world, lease), world.state / "node" / "kept" / lease]

    def ended() -> int:
        for place in places:
            path = place / "exit.json"
            if path.exists():
                return int(json.loads(path.read_text())["ended_boottime_ns"])
        return 0

    return await eventually(ended, 20.0, "the keeper wrote the exit down")


def ended_wall_ns(world: World, lease: str) -> int:
    """The same end by the wall clock, which the scheduler's events on this host tell too."""
    for place in ("leases", "kept"):
        path = world.state / "node" / place / lease / "exit.json"
        if path.exists():
            return int(json.loads(path.read_text())["ended_wall_ns"])
    raise AssertionError("the keeper's record is gone")


async def running(tenant: Client, *commands: str) -> tuple[str, str]:
    """A job that has begun: its name and its lease."""
    name = (await tenant.submit(draft(*commands))).name
    await prints(tenant, name, b"begin")
    return name, (await tenant.get_job(name)).tasks[0].lease


@pytest.mark.parametrize("agent_dies", [False, True], ids=["agent lives", "agent is killed"])
async def test_a_deaf_task_is_killed_at_its_deadline(
    cuttable: tuple[World, Link], agent_dies: bool
) -> None:
    world, link = cuttable
    async with world.tenant() as tenant:
        name, lease = await running(tenant, DEAF)
        link.cut()
        if agent_dies:
            world.kill("agent")
        folder = lease_folder(world, lease)
        deadline = deadline_ns(folder)
        ended = await ended_ns(world, lease)
        deadline = max(deadline, deadline_ns(folder) if folder.exists() else 0)
        assert abs(ended - deadline) <= SECOND_NS, (ended - deadline) / 1e9

        # The only node is away: the task waits, placed again only after Close and its wait.
        job = await state_is(tenant, name, job_pb2.JOB_STATE_PENDING)
        assert job.tasks[0].attempt == 1
        events = await tenant.list_events(entity=name)
        (requeued,) = [event for event in events if event.type == "job.requeued"]
        assert requeued.time.ToNanoseconds() > ended_wall_ns(world, lease)
        link.heal()
        again = await state_is(tenant, name, job_pb2.JOB_STATE_RUNNING)
        assert again.tasks[0].attempt == 2
        assert again.tasks[0].lease != lease
        await prints(tenant, name, b"begin")
        await tenant.cancel(name)
        await state_is(tenant, name, *ENDED)

        async def final() -> bool:
            lines = await tenant.list_usage(job=name)
            return len(lines) == 2 and all(line.lease_state == "FINAL" for line in lines)

        await eventually(final, 40.0, "both leases are final")
        first = next(line for line in await tenant.list_usage(job=name) if line.lease == lease)
        assert 0 < first.charged_ns <= first.granted_ns


async def test_an_obedient_task_exits_within_the_grace(cuttable: tuple[World, Link]) -> None:
    world, link = cuttable
    async with world.tenant() as tenant:
        name, lease = await running(tenant, POLITE)
        link.cut()
        deadline = deadline_ns(lease_folder(world, lease))
        ended = await ended_ns(world, lease)
        link.heal()
        assert deadline - GRACE_NS - SECOND_NS // 4 <= ended <= deadline + SECOND_NS // 4
        await state_is(tenant, name, *ENDED, job_pb2.JOB_STATE_RUNNING)
        await tenant.cancel(name)
        await state_is(tenant, name, *ENDED)


async def test_a_cut_that_heals_in_time_changes_nothing(cuttable: tuple[World, Link]) -> None:
    world, link = cuttable
    async with world.tenant() as tenant:
        name, lease = await running(
            tenant, "trap 'echo told' TERM; echo begin; for i in 1 2 3 4 5 6 7 8; do sleep 1; done"
        )
        folder = lease_folder(world, lease)
        before = deadline_ns(folder)
        link.cut()
        await eventually(lambda: world.pid("agent") is not None, 1.0)
        link.heal()
        await eventually(lambda: deadline_ns(folder) > before, 6.0, "the grant was renewed")
        job = await state_is(tenant, name, *ENDED)
        output = b"".join([piece async for piece in tenant.logs(name)])
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
        assert job.tasks[0].attempt == 1
        assert b"told" not in output
