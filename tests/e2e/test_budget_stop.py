"""Budgets that run out on a real node: many deaf tasks, each stopped when its notice is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from gridlease_sdk import Client
from gridlease_store.embedded import EmbeddedPostgres
from gridlease_testkit.waiting import eventually

from tests.e2e.world import ENDED, QUICK, World, draft, state_is

NOTICE_MS = 6_000
TIMING = {**QUICK, "GRIDLEASE_NOTICE_MS": str(NOTICE_MS), "GRIDLEASE_GRACE_MS": "1500"}
DEAF = "trap '' TERM; while :; do sleep 0.2; done"
TASKS = 12
_ROWS = """
SELECT id, state, cause, ends_at_ms, notice_ms, charged_nano, held_nano FROM billing.lease
WHERE job = ANY($1)
"""


@pytest.fixture(scope="module")
def hasty(folder: Path) -> Iterator[World]:
    one = World(folder / "hasty", timing=TIMING)
    one.start()
    yield one
    one.stop()


async def submit(tenant: Client, number: int, rate_nano: int) -> tuple[str, int]:
    """A job whose budget lasts for its first grant, its notice, and some seconds more."""
    seconds = (int(QUICK["GRIDLEASE_GRANT_MS"]) + NOTICE_MS) // 1_000 + number % 6
    budget = rate_nano * seconds // 3_600 + 1
    resources = {"cpu": 0.05, "memory": "32MB", "disk": "32MB"}
    asked = draft(DEAF, resources=resources, budget=f"{budget / 1e9:.9f}", name=f"b{number}")
    return (await tenant.submit(asked)).name, budget


def ended_wall_ms(world: World, lease: str) -> float | None:
    for place in ("leases", "kept"):
        path = world.state / "node" / place / lease / "exit.json"
        if path.exists():
            return int(json.loads(path.read_text())["ended_wall_ns"]) / 1e6
    return None


@pytest.mark.slow
async def test_a_refused_budget_stops_work_when_its_notice_is_over(hasty: World) -> None:
    async with hasty.tenant() as tenant:
        resources = {"cpu": 0.05, "memory": "32MB", "disk": "32MB"}
        quote = await tenant.quote(draft(DEAF, resources=resources), duration_ms=3_600_000)
        made = [await submit(tenant, n, quote.rate_nano_per_hour) for n in range(TASKS)]
        budgets = dict(made)
        for name in budgets:
            await state_is(tenant, name, *ENDED, timeout_s=120.0)
        dsn = EmbeddedPostgres(hasty.state / "postgres").dsn("gridlease")
        db = await asyncpg.connect(dsn)
        try:

            async def final() -> list[asyncpg.Record] | None:
                rows = await db.fetch(_ROWS, list(budgets))
                done = len(rows) == TASKS and all(it["state"] == "FINAL" for it in rows)
                return list(rows) if done else None

            rows = await eventually(final, 60.0, "all leases are final")
        finally:
            await db.close()
        assert rows is not None
        jobs = {it.tasks[0].lease: name for name in budgets if (it := await tenant.get_job(name))}
    off = []
    for row in rows:
        assert row["cause"] == "BUDGET_EXHAUSTED", dict(row)
        assert row["held_nano"] == 0
        assert row["charged_nano"] <= budgets[jobs[row["id"]]]
        ended = await asyncio.to_thread(ended_wall_ms, hasty, row["id"])
        assert ended is not None
        refused_ms = row["ends_at_ms"] - row["notice_ms"]
        off.append((ended - refused_ms - NOTICE_MS) / 1_000)
    off.sort()
    print(f"notice to stop, beside {NOTICE_MS} ms: {off[0]:+.3f} to {off[-1]:+.3f} s")
    assert max(abs(it) for it in off) <= 1.0, off
