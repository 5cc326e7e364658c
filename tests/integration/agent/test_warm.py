"""Sandboxes made ahead, by a real agent: a lease takes one, and no crash costs more than those."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import tarfile
from pathlib import Path

import pytest
from gridlease.scheduler.v1 import sync_pb2
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.runtimes.choose import crun_candidate
from gridlease_testkit.waiting import elapsed, eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre
from tests.integration.agent.test_split import pids

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or crun_candidate() is None,
    reason="crun makes them, as root",
)
MIB = 1 << 20
PYTHON = Path("/usr/bin/python3").exists()


def wish(centre: Centre, created: int, **more) -> None:
    """What ``Centre.want`` asks for, ahead."""
    sizes = {"cpu_milli": 1000, "memory_bytes": 256 * MIB, "disk_bytes": 64 * MIB}
    one = sync_pb2.Preload(tenant="tenants/demo", created=created, **sizes, **more)
    centre.preload = [one] if created or more else []
    centre.hint()


def ahead(agent: Agent) -> list[Path]:
    return sorted((agent.state / "leases").glob("warm-*"))


def waits(agent: Agent) -> list[Path]:
    """Those that the agent has said a lease could take, and that are there."""
    log = agent.log.read_text()
    told = [each for each in ahead(agent) if f'"{each.name}"' in log or f"={each.name}" in log]
    return told if "a sandbox waits for a lease" in log else []


def used(agent: Agent) -> int:
    return agent.log.read_text().count("a sandbox made ahead is used")


def output(agent: Agent, lease: str) -> str:
    return (agent.state / "kept" / lease / "log").read_text()


def bundled(centre: Centre, name: str, text: bytes) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return centre.bundle(out.getvalue())


async def test_a_lease_takes_one_of_its_tenant(centre: Centre, agent: Agent) -> None:
    wish(centre, 1)
    await eventually(lambda: len(waits(agent)) == 1, 20)
    first = waits(agent)[0]
    digest = bundled(centre, "said.txt", b"mine\n")
    centre.want("ls-other", ["echo other"], tenant="tenants/other")
    await eventually(lambda: centre.gone("ls-other"), 20)
    assert (used(agent), first.exists()) == (0, True)
    centre.want("ls-1", ["cat said.txt; ls -a .gridlease; id -u"], bundle_digest=digest)
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert used(agent) == 1
    assert output(agent, "ls-1").splitlines() == ["mine", ".", "..", "1000"]
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")
    assert centre.charged_ns("ls-1") == ended.ran_ns
    assert not first.exists()
    await eventually(lambda: len(waits(agent)) == 1, 20)  # and there is another
    assert "a live sandbox was found" not in agent.log.read_text()
    wish(centre, 0)
    await eventually(lambda: not ahead(agent), 20)


async def test_a_frozen_one_has_its_modules(centre: Centre, agent: Agent) -> None:
    if not PYTHON:
        pytest.skip("the host has no Python of its own that a sandbox sees")
    wish(centre, 0, frozen=1, modules=["json", "decimal"])
    await eventually(lambda: len(waits(agent)) == 1, 20)
    code = "import sys, os; print('decimal' in sys.modules, os.environ['GRIDLEASE_LEASE'])"
    centre.want("ls-1", [f'python3 -c "{code}"'])
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert (used(agent), output(agent, "ls-1")) == (1, "True ls-1\n")


async def test_what_cannot_be_made_is_left_alone(centre: Centre, agent: Agent) -> None:
    wish(centre, 0, frozen=1, modules=["no_such_module"])
    made: set[str] = set()

    def seen() -> bool:
        made.update(each.name for each in ahead(agent))
        return len(made) >= 2 and not ahead(agent)

    await eventually(seen, 20)
    centre.want("ls-1", ["echo cold"])
    await eventually(lambda: centre.gone("ls-1"), 20)
    await eventually(lambda: not ahead(agent), 5)
    assert used(agent) == 0


async def _killed(centre: Centre, agent: Agent, rounds: int, seed: int) -> None:
    """Core or executor dies at a random point of making and releasing, again and again."""
    chance = random.Random(seed)
    wish(centre, 2)
    for each in range(rounds):
        lease = f"ls-{each}"
        centre.want(lease, ["echo ran >> /work/out; cat /work/out"])
        who = pids(agent)[chance.choice(["core", "executor"])]
        with_in = chance.uniform(0, 0.25)
        await elapsed(with_in)
        assert who
        with contextlib.suppress(ProcessLookupError):
            os.kill(who, signal.SIGKILL)
        try:
            await eventually(lambda lease=lease: centre.gone(lease), 60)
        except AssertionError as trouble:
            there = sorted(str(x) for x in (agent.state / "leases").glob("*/*.json"))
            tail = agent.log.read_text()[-3000:]
            raise AssertionError(f"{lease}: {centre.seen(lease)}\n{there}\n{tail}") from trouble
        ended = centre.exit(lease)
        assert ended is not None
        assert ended.reason == "START_LOST" or (ended.exit_code, ended.reason) == (0, "EXITED")
        if ended.reason == "EXITED":
            assert output(agent, lease) == "ran\n"
        centre.forget(lease)
    wish(centre, 0)
    await eventually(lambda: not ahead(agent), 30)
    agent.stop()
    store = SpoolFile(agent.state / "spool.sqlite")
    recorded = store.read()
    store.close()
    assert recorded is not None
    assert not recorded.spool.warm


async def test_a_kill_costs_no_lease_twice(centre: Centre, agent: Agent) -> None:
    await _killed(centre, agent, 4, 7)


@pytest.mark.slow
async def test_many_kills_cost_no_lease_twice(centre: Centre, agent: Agent) -> None:
    await _killed(centre, agent, 12, 11)
