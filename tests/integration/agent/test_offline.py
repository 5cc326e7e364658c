"""A node cut off for hours: its spool stays small, and on return everything is told once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from gridlease_agent.domain.thinning import most_kept
from gridlease_billing.domain import grant

from tests.integration.agent.cut_off import HOUR_MS, CutOff

EDGE = grant.Terms(grant_ms=48 * HOUR_MS)
CITY = grant.Terms(grant_ms=120_000)
QUOTA_BYTES = 64 << 20


def leases(hours: int) -> dict[str, tuple[int, grant.Terms]]:
    """Twenty: by their grants and their own length some go on, some end by themselves, and some
    are stopped."""
    long, half = 100 * HOUR_MS, hours * HOUR_MS // 2
    kinds = [("stays", long, EDGE), ("ends", half, EDGE), ("stops", long, CITY)]
    turns = itertools.cycle(kinds)
    return {f"ls-{n:02d}-{kind}": (ms, terms) for n, (kind, ms, terms) in zip(range(20), turns)}  # noqa: B905


async def _offline(folder: Path, hours: int, seed: int) -> CutOff:
    world = CutOff(folder, seed)
    for lease_id, (span_ms, terms) in leases(hours).items():
        world.lend(lease_id, span_ms, terms)
    await world.turns(6)
    await world.backfill.catch_up()
    names = tuple(leases(hours))
    for _ in range(60):
        world.second(names)
    await world.turns(2)
    world.cut(off=True)
    for minute in range(hours * 60):
        if minute == hours * 30:  # and the agent dies in the middle of it
            await world.agent_ends()
            world.agent_starts()
            world.wire.disconnect()
        for _ in range(60):
            world.second(names)
        await world.turns(1)
        world.measure()
    return world


async def _back(world: CutOff) -> None:
    world.cut(off=False)
    world.billing.lose_answers = 2  # committed, and not heard of
    for _ in range(4):
        await world.backfill.catch_up()
        world.clock.advance(6.0)
        await world.turns(3)


def _exactly_once(world: CutOff, hours: int) -> None:
    spans = leases(hours)
    assert len(world.scheduler.endings) == len({name for name, _, _ in world.scheduler.endings})
    reasons = {name: reason for name, _, reason in world.scheduler.endings}
    ended = world.ran_ns()
    for name, (span_ms, terms) in spans.items():
        row, charged = world.billing.rows[name], world.billing.charged_nano(name)
        assert charged == row.charged_nano, name
        if name.endswith("stays"):
            assert name not in reasons, reasons
            ran_ns = row.counters[1, "run"]
            assert abs(ran_ns - hours * HOUR_MS * 10**6) < 200 * 10**9, ran_ns
        elif name.endswith("ends"):
            assert reasons[name] == "EXITED"
            assert ended[name] == span_ms * 10**6 == row.counters[1, "run"]
        else:
            assert reasons[name] == "DEADLINE"
            assert 60 * 10**9 <= ended[name] <= terms.grant_ms * 10**6 + 70 * 10**9
        if name in reasons:
            assert name in world.billing.final()
            assert charged == ended[name] // 1000, name  # 1 nano-unit a microsecond


def _telemetry(world: CutOff, hours: int) -> None:
    keys = [(stream, sequence) for stream, sequence, _, _ in world.heard]
    assert len(keys) == len(set(keys)), "told twice"
    assert keys == sorted(keys, key=lambda key: key[1]), "out of order"
    for _, _, time_ms, energy in world.heard:
        assert time_ms - world.born_ms == (energy - 1) * 1000, "a time is wrong"
    assert len(keys) <= most_kept(hours) + 300 + 120
    counts = world.reader.counts_of("n-1")
    assert (counts.lost, counts.bad, counts.keyless) == (0, 0, 0)
    assert counts.received + counts.dropped + 300 >= hours * 3600 + 60


async def _campaign(folder: Path, hours: int, seed: int) -> None:
    world = await _offline(folder, hours, seed)
    assert world.largest_bytes <= QUOTA_BYTES
    kept = world.telemetry.waiting
    await _back(world)
    print(
        f"offline {hours} h, seed {seed}: spool at most {world.largest_bytes:,} bytes, "
        f"{kept} samples waited, {len(world.heard)} heard, "
        f"{len(world.billing.effects)} postings, {len(world.scheduler.endings)} endings"
    )
    _exactly_once(world, hours)
    _telemetry(world, hours)
    await world.agent_ends()


async def test_three_hours_cut_off(tmp_path: Path) -> None:
    await _campaign(tmp_path, 3, 7)


@pytest.mark.slow
async def test_a_day_cut_off(tmp_path: Path) -> None:
    await _campaign(tmp_path, 24, 11)
