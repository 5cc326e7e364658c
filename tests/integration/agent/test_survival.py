"""What a task and its account survive: the agent's death, a lost disk, a reboot, a cut."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.adapters.host import ThisHost
from gridlease_agent.body import real_body
from gridlease_agent.bootstrap import Node
from gridlease_agent.settings import Settings
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_testkit.waiting import eventually

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre

BUSY = "while true; do sleep 0.05; done"


def started(agent: Agent, lease: str) -> dict[str, Any]:
    """The keeper's record of a start; on a busy machine the task may have ended since."""
    places = [agent.state / place / lease / "started.json" for place in ("leases", "kept")]
    path = next((it for it in places if it.exists()), places[0])
    record: dict[str, Any] = json.loads(path.read_text())
    return record


async def test_a_killed_agent_adopts_and_reports_once(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["echo ran; sleep 5; echo over > out"], outputs=["out"])
    await eventually(lambda: centre.running("ls-1"), 20)
    before = started(agent, "ls-1")
    agent.kill()
    await agent.start()
    assert started(agent, "ls-1") == before
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")
    assert centre.charged_ns("ls-1") == ended.ran_ns
    assert (agent.state / "kept" / "ls-1" / "log").read_bytes() == b"ran\n"
    assert '"on_record": true' in agent.log.read_text()


async def test_an_exit_while_the_agent_was_dead_is_reported(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["sleep 0.5; exit 7"])
    await eventually(lambda: centre.running("ls-1"), 20)
    agent.kill()
    exit_file = agent.state / "leases" / "ls-1" / "exit.json"
    await eventually(exit_file.exists, 10)
    await agent.start()
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (7, "EXITED")
    assert centre.charged_ns("ls-1") == ended.ran_ns < 3e9


async def test_a_killed_keeper_is_start_lost(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.running("ls-1"), 20)
    agent.end_tasks()
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert ended.reason == "START_LOST"


async def test_a_lost_spool_starts_nothing_again(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.running("ls-1"), 20)
    before = started(agent, "ls-1")
    agent.kill()
    for path in agent.state.glob("spool.sqlite*"):
        path.unlink()
    centre.syncs.clear()
    await agent.start()
    # Billing refuses the lease to the new spool; the sandbox is left to its shim.
    await eventually(lambda: centre.exit("ls-1"), 20)
    assert centre.exit("ls-1").reason == "OTHER_SPOOL"  # type: ignore[union-attr] # it ended
    assert started(agent, "ls-1") == before
    assert not (agent.state / "leases" / "ls-1" / "exit.json").exists()
    assert centre.syncs[-1].spool_id != centre.spools["ls-1"]


async def test_an_unknown_sandbox_is_reported_and_left_alone(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.running("ls-1"), 20)
    agent.kill()
    for path in agent.state.glob("spool.sqlite*"):
        path.unlink()
    centre.run.clear()
    centre.hint()
    before = started(agent, "ls-1")
    await agent.start()
    await eventually(lambda: list(centre.inventories[-1].quarantined) == ["ls-1"], 20)
    assert started(agent, "ls-1") == before
    assert await asyncio.to_thread(Path(f"/proc/{before['init_pid']}").exists)
    assert centre.seen("ls-1") is None or not centre.syncs[-1].leases


async def test_an_unreadable_spool_is_set_aside(centre: Centre, agent: Agent) -> None:
    agent.kill()
    for path in agent.state.glob("spool.sqlite*"):
        path.unlink()
    (agent.state / "spool.sqlite").write_bytes(b"nonsense" * 1000)
    await agent.start()
    assert (agent.state / "spool.broken").exists()


async def test_cut_off_and_without_an_agent_the_task_ends_at_its_deadline(
    state_folder: Path,
) -> None:
    with EmbeddedNats(state_folder / "nats") as broker:
        async with centres.running(broker) as centre:
            agent = Agent(state_folder / "node")
            centres.enrol(broker, agent.state)
            await agent.start()
            try:
                centre.grant_ms = 3000
                centre.want("ls-1", [f"trap '' TERM; {BUSY}"])
                await eventually(lambda: centre.running("ls-1"), 20)
                broker.kill()
                agent.kill()
                deadline = centre.granted_at["ls-1"] + 3.0
                exit_file = agent.state / "leases" / "ls-1" / "exit.json"
                await eventually(exit_file.exists, 10)
                assert abs(time.monotonic() - deadline) < 1.0
                broker.start()
                await agent.start()
                await eventually(lambda: centre.gone("ls-1"), 20)
                ended = centre.exit("ls-1")
                assert ended is not None
                assert ended.reason == "DEADLINE"
                assert centre.charged_ns("ls-1") <= ended.ran_ns <= 4.2e9
            finally:
                agent.stop()
                agent.end_tasks()


async def test_a_cut_that_heals_in_time_changes_nothing(state_folder: Path) -> None:
    with EmbeddedNats(state_folder / "nats") as broker:
        async with centres.running(broker) as centre:
            agent = Agent(state_folder / "node")
            centres.enrol(broker, agent.state)
            await agent.start()
            try:
                centre.grant_ms = 8000
                centre.want("ls-1", ["sleep 4; echo fine"])
                await eventually(lambda: centre.running("ls-1"), 20)
                broker.kill()
                broker.start()
                await eventually(lambda: centre.gone("ls-1"), 30)
                ended = centre.exit("ls-1")
                assert ended is not None
                assert (ended.exit_code, ended.reason) == (0, "EXITED")
            finally:
                agent.stop()
                agent.end_tasks()


async def test_after_a_reboot_nothing_starts_again(
    nats: Any, centre: Centre, state_folder: Path
) -> None:
    credential = centres.enrol(nats, state_folder)
    settings = Settings(renew_retry_ms=300, grace_ms=500, slow_tick_ms=500)
    body = await asyncio.to_thread(real_body, state_folder, settings)

    def node(boot_id: str) -> Node:
        return Node(state_folder, state_folder, credential, body, settings, ThisHost(None, boot_id))

    first = asyncio.create_task(node("").run())
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.charged_ns("ls-1") > 0 or centre.running("ls-1"), 20)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    Agent(state_folder).end_tasks()
    await eventually((state_folder / "leases" / "ls-1" / "exit.json").exists, 10)
    (state_folder / "leases" / "ls-1" / "exit.json").unlink()
    again = asyncio.create_task(node("another-boot").run())
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert ended.reason == "NODE_REBOOT"
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
