from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.storm import Storm
from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent

Brew = Callable[..., Storm]


@pytest.fixture
async def brew(nats: Any, state_folder: Path) -> AsyncIterator[Brew]:
    """Makes a storm over an enrolled agent; ends whatever it leaves."""
    made: list[Storm] = []
    async with centres.running(nats) as centre:
        centre.grant_ms = 120_000
        centres.enrol(nats, state_folder)

        def one(seed: int, at_once: int, seconds: tuple[float, float]) -> Storm:
            agent = Agent(state_folder, renew_retry_ms="1000", kept_bytes=str(64 << 20))
            made.append(Storm(centre, agent, seed, at_once, seconds))
            return made[-1]

        yield one
        for storm in made:
            storm.agent.stop()
            storm.agent.end_tasks()
