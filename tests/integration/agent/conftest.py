from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent


@pytest.fixture
async def centre(nats: Any) -> AsyncIterator[centres.Centre]:
    async with centres.running(nats) as one:
        yield one


@pytest.fixture
async def agent(nats: Any, centre: centres.Centre, state_folder: Path) -> AsyncIterator[Agent]:
    """An enrolled agent that serves."""
    centres.enrol(nats, state_folder)
    one = Agent(state_folder)
    await one.start()
    yield one
    one.stop()
    one.end_tasks()
