"""What devices draw becomes a meter of the leases that held them; readings here are emulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

from gridlease.billing.v1 import lease_pb2
from gridlease_agent.adapters.mesh_calls import BillingCalls
from gridlease_agent.book import Book
from gridlease_agent.domain import lease, meters
from gridlease_agent.domain.health import Vitals, Watched
from gridlease_agent.domain.spool import RUN_METER, Phase, Row, Spool
from gridlease_agent.energy import EnergyTally
from gridlease_mesh.bus import Bus


def _row(lease: str, *devices: str, phase: Phase = Phase.STARTING) -> Row:
    return Row(lease, devices, "boot", 0, 0, phase=phase, segments=((1, 0),))


def _spool(*rows: Row) -> Spool:
    return Spool(spool_id="s").with_rows(*rows)


class _Book:
    def __init__(self, spool: Spool) -> None:
        self.spool = spool

    async def change(self, decide: Callable[[Spool], Spool]) -> None:
        self.spool = decide(self.spool)


async def _look(tally: EnergyTally, book: _Book) -> None:
    await tally.look(cast("Book", book))


def _energy(book: _Book, lease: str, segment: int = 1) -> int:
    return book.spool.rows[lease].counters.get((segment, meters.ENERGY_METER), 0)


def test_leases_on_one_device_share_evenly_and_new_ones_get_nothing_yet() -> None:
    spool = _spool(_row("a", "g0"), _row("b", "g0"), _row("c", "g1"), _row("d", "g1"))
    held = {"g0": frozenset("ab"), "g1": frozenset("c")}
    after = meters.drew(spool, {"g0": 1_001, "g1": 10}, held)
    told = {lease: dict(row.counters) for lease, row in after.rows.items()}
    assert told == {"a": {(1, "energy"): 500}, "b": {(1, "energy"): 500},
                    "c": {(1, "energy"): 5}, "d": {}}  # fmt: skip


async def test_only_growth_between_two_looks_counts() -> None:
    book = _Book(_spool(_row("a", "g0"), _row("x", "g1", phase=Phase.KNOWN)))
    watched = {"g0": Watched(Vitals(energy_mj=5_000)), "g1": Watched(Vitals(energy_mj=1))}
    tally = EnergyTally(lambda: watched, ["g0", "g1"])
    for reading, wanted in ((5_000, 0), (5_700, 700), (100, 700), (None, 700), (150, 700)):
        watched["g0"] = Watched(Vitals(energy_mj=reading))
        await _look(tally, book)
        assert _energy(book, "a") == wanted
    assert _energy(book, "x") == 0


async def test_power_in_doubt_is_not_summed_up_and_segments_count_on() -> None:
    book = _Book(_spool(_row("a", "g0")))
    watched = {"g0": Watched(energy_mj=10)}
    tally = EnergyTally(lambda: watched, ["g0"])
    await _look(tally, book)
    watched["g0"] = Watched(energy_mj=30, suspect=frozenset({"power"}))
    await _look(tally, book)
    assert _energy(book, "a") == 0
    watched["g0"] = Watched(energy_mj=40)
    await _look(tally, book)
    row = book.spool.rows["a"]
    book.spool = book.spool.with_rows(dataclasses.replace(row, segments=((1, 0), (2, 9))))
    watched["g0"] = Watched(energy_mj=47)
    await _look(tally, book)
    assert _energy(book, "a", 2) == 7


async def test_a_device_that_is_emulated_or_unknown_counts_for_nobody() -> None:
    book = _Book(_spool(_row("a", "g0")))
    watched = {"g0": Watched(Vitals(energy_mj=1))}
    tally = EnergyTally(lambda: watched, [])
    await _look(tally, book)
    watched["g0"] = Watched(Vitals(energy_mj=9))
    await _look(tally, book)
    assert _energy(book, "a") == 0


class _Bus:
    """A bus on which billing hears, and answers nothing."""

    def __init__(self) -> None:
        self.heard: list[lease_pb2.SettleRequest] = []

    def channel(self, **_: float) -> _Bus:
        return self

    def unary_unary(self, *_: object, **__: object) -> Callable[..., object]:
        return self._hear

    async def _hear(self, request: lease_pb2.SettleRequest) -> lease_pb2.SettleResponse:
        self.heard.append(request)
        return lease_pb2.SettleResponse()


async def test_every_meter_that_a_lease_has_is_told_to_billing() -> None:
    spool = meters.sent(_spool(_row("a", "g0")), {"a": 70})
    spool = meters.drew(spool, {"g0": 9}, {"g0": frozenset("a")})
    spool = spool.with_rows(
        dataclasses.replace(
            spool.rows["a"], counters={**spool.rows["a"].counters, (1, RUN_METER): 5}
        )
    )
    bus = _Bus()
    await BillingCalls(cast("Bus", bus), 1.0).settle("s", lease.settle_report(spool))
    told = {it.meter: it.cumulative for it in bus.heard[0].reports[0].counters}
    assert told == {"run": 5, "egress": 70, "energy": 9}
