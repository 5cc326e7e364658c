"""The agent as a core without rights and a root part: either's death leaves the tasks alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from gridlease_testkit.waiting import eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre

pytestmark = pytest.mark.root
BUSY = "while true; do sleep 0.05; done"


def pids(agent: Agent) -> dict[str, int]:
    record: dict[str, int] = json.loads((agent.state / "agent.json").read_text())
    return record


def text(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def status(pid: int, name: str) -> list[str]:
    lines = text(pid, "status").splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(name))


async def test_the_core_has_no_rights(centre: Centre, agent: Agent) -> None:
    who = pids(agent)
    assert "0" not in status(who["core"], "Uid:")
    assert "0" not in status(who["core"], "Gid:")
    assert status(who["core"], "Groups:") == []
    assert status(who["core"], "CapEff:") == ["0" * 16]
    assert status(who["core"], "NoNewPrivs:") == ["1"]
    assert status(who["executor"], "Uid:")[0] == "0"
    assert who["parent"] == agent.process.pid  # type: ignore[union-attr] # it serves
    assert (agent.state / "leases").stat().st_mode & 0o077 == 0
    assert (agent.state / "leases").stat().st_uid == 0
    maps = text(who["executor"], "maps")
    assert "grpc" not in maps


async def test_a_killed_executor_comes_back_and_no_task_notices(
    centre: Centre, agent: Agent
) -> None:
    centre.want("ls-1", ["sleep 2; echo over"])
    await eventually(lambda: centre.running("ls-1"), 20)
    before = pids(agent)
    os.kill(before["executor"], signal.SIGKILL)
    await eventually(lambda: pids(agent)["executor"] not in (0, before["executor"]), 10)
    assert pids(agent)["core"] == before["core"]
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")
    assert centre.charged_ns("ls-1") == ended.ran_ns
    centre.want("ls-2", ["echo again"])
    await eventually(lambda: centre.gone("ls-2"), 20)


async def test_a_killed_core_comes_back_and_adopts(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.running("ls-1"), 20)
    started = (agent.state / "leases" / "ls-1" / "started.json").read_text()
    before = pids(agent)
    os.kill(before["core"], signal.SIGKILL)
    await eventually(lambda: pids(agent)["core"] not in (0, before["core"]), 10)
    await eventually(agent.ready_file.exists, 20)
    assert pids(agent)["executor"] == before["executor"]
    assert (agent.state / "leases" / "ls-1" / "started.json").read_text() == started
    centre.end("ls-1")
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert '"on_record": true' in agent.log.read_text()


async def test_a_killed_parent_takes_both_along_and_no_task(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", [BUSY])
    await eventually(lambda: centre.running("ls-1"), 20)
    before = pids(agent)
    agent.kill()
    for name in ("executor", "core"):
        await eventually(lambda name=name: not _lives(before[name]), 5)
    keeper = json.loads((agent.state / "leases" / "ls-1" / "shim.json").read_text())["pid"]
    assert _lives(keeper)
    await agent.start()
    centre.end("ls-1")
    await eventually(lambda: centre.gone("ls-1"), 20)


def _lives(pid: int) -> bool:
    try:
        return status(pid, "State:")[0] not in "ZX"
    except OSError:
        return False
