"""The host goes down with its tasks and comes back as another boot: all have ended, none runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.adapters.host import ThisHost
from gridlease_agent.body import real_body
from gridlease_agent.bootstrap import Node
from gridlease_agent.settings import Settings
from gridlease_testkit.waiting import eventually

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent

pytestmark = [pytest.mark.root, pytest.mark.slow]
TASKS = 20


def _starts(state: Path) -> dict[str, int]:
    paths = (state / "leases").glob("*/started.json")
    return {x.parent.name: json.loads(x.read_text("utf-8"))["boottime_ns"] for x in paths}


async def test_a_reboot_ends_all_and_starts_none(nats: Any, state_folder: Path) -> None:
    settings = Settings(renew_retry_ms=300, grace_ms=500, slow_tick_ms=500, burn_in_ms=0)
    async with centres.running(nats) as centre:
        credential = centres.enrol(nats, state_folder)
        body = await asyncio.to_thread(real_body, state_folder, settings)

        def node(boot_id: str) -> asyncio.Task[None]:
            host = ThisHost(None, boot_id)
            one = Node(state_folder, state_folder, credential, body, settings, host)
            return asyncio.create_task(one.run())

        async def ended(task: asyncio.Task[None]) -> None:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        names = [f"ls-{n:02d}" for n in range(TASKS)]
        first = node("")
        for name in names:
            centre.want(name, ["sleep 600"]).allocation.cpu_milli = 50
        await eventually(lambda: all(centre.running(name) for name in names), 60.0, "all run")
        starts = await asyncio.to_thread(_starts, state_folder)
        assert len(starts) == TASKS
        await ended(first)
        Agent(state_folder).end_tasks()  # the power goes: nobody writes a last word
        folders = [state_folder / "leases" / name for name in names]
        await eventually(lambda: all((x / "exit.json").exists() for x in folders), 20.0, "all dead")
        for folder in folders:
            (folder / "exit.json").unlink()
        charged = {name: centre.charged_ns(name) for name in names}
        centre.syncs.clear()
        second = node("another-boot")
        try:
            await eventually(lambda: all(centre.gone(name) for name in names), 60.0, "all told")
            for name in names:
                told = centre.exit(name)
                assert told is not None
                assert told.reason == "NODE_REBOOT", told
                assert centre.charged_ns(name) >= charged[name]
                assert centre.charged_ns(name) == told.ran_ns
            left = await asyncio.to_thread(_starts, state_folder)
            assert left.items() <= starts.items(), "something was started again"
        finally:
            await ended(second)
