"""The spot price follows use through the whole platform: node, leader, billing, gateway, client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_testkit.waiting import eventually

from tests.e2e.world import QUICK, World


@pytest.fixture
def brisk(folder: Path) -> Iterator[World]:
    """A platform whose spot windows last a second; nothing runs on its one node."""
    one = World(folder / "state", timing={**QUICK, "GRIDLEASE_SPOT_WINDOW_MS": "1000"})
    one.start()
    yield one
    one.stop()


@pytest.mark.slow
async def test_an_idle_chip_gets_cheaper_for_everybody_who_looks(brisk: World) -> None:
    async with brisk.tenant() as client:

        async def found() -> dict[int, tuple[str, int]]:
            offers = [it for it in await client.list_offers() if it.chip.startswith("cpu-")]
            return {it.tier: (it.chip, it.price_nano_per_hour) for it in offers}

        await eventually(found, 30.0, "the node is on offer")
        (chip, dear) = (await found())[job_pb2.TIER_ON_DEMAND]
        first = dear * 400 // 1_000

        async def cheaper() -> int | None:
            price = (await found())[job_pb2.TIER_SPOT][1]
            return price if price < first else None

        price = await eventually(cheaper, 60.0, "its spot price falls")
        assert price >= dear // 5, "never below its floor"
        assert (await found())[job_pb2.TIER_ON_DEMAND] == (chip, dear)
    told = await asyncio.to_thread(_offers, brisk, chip)
    (spot,) = [it for it in told if it["tier"] == "TIER_SPOT"]
    assert dear // 5 <= int(spot["price_nano_per_hour"]) <= price


def _offers(world: World, chip: str) -> list[dict[str, str]]:
    """What the command says."""
    told = subprocess.run(
        [sys.executable, "-m", "gridlease_cli", "--json", "offers", chip],
        env={**os.environ, "GRIDLEASE_CLIENT_FILE": str(world.state / "client.json")},
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    return list(json.loads(told.stdout))
