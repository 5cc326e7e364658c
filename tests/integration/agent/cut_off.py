"""A node's real classes on a virtual clock, beside billing's real functions: hours in seconds.

Real: the book, its SQLite file, reconciling, settling, syncing, telemetry's spool and codec,
billing's fold, rating and renewal. Played: time, the sandboxes, and the wire, which can be cut.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gridlease_agent import shim
from gridlease_agent.adapters.bundles import BundleFolder
from gridlease_agent.adapters.host import ThisHost
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.adapters.prepared import PreparedFolder
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.adapters.telemetry_spool import TelemetrySpool
from gridlease_agent.backfill import Backfill
from gridlease_agent.domain import lease
from gridlease_agent.domain.spool import Spool, StopOrder
from gridlease_agent.domain.task import Task
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.ports import Desired, Seen
from gridlease_agent.prepare import Preparer
from gridlease_agent.reconcile import Reconciler
from gridlease_agent.recover import recover
from gridlease_agent.scrub import Scrubber
from gridlease_agent.settle import Settler
from gridlease_agent.spans import TaskSpans
from gridlease_agent.sync import Syncer
from gridlease_agent.watch import Watch
from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import Effect, GrantRow, State
from gridlease_kernel.clock import ManualClock
from gridlease_kernel.faults import Unreachable
from gridlease_kernel.ids import RandomIds
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker
from gridlease_mesh.telemetry import TelemetryReader
from gridlease_mesh.telemetry_report import Report
from gridlease_mesh.telemetry_sample import (
    DeviceIdentity,
    DeviceReadings,
    HostReadings,
    LeaseReadings,
    NodeIdentity,
    sample,
)

NODE = "n-1"
HOUR_MS = 3_600_000
RATE_NANO = 3_600_000_000  # an hour costs so much: a second costs 1,000,000
FUNDS = grant.Funds(10**18)
DEVICES = tuple(f"gpu-{n}" for n in range(8))


def _cut() -> Unreachable:
    return Unreachable("Nobody answers.", reason="NO_ANSWER", remedy="Wait.")


class Billing:
    """Billing's rows in memory; what is committed can be answered, or the answer lost."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.rows: dict[str, GrantRow] = {}
        self.terms: dict[str, grant.Terms] = {}
        self.effects: list[Effect] = []
        self.reachable = True
        self.lose_answers = 0

    def now_ms(self) -> int:
        return round(self._clock.wall().timestamp() * 1000)

    def authorize(self, lease_id: str, terms: grant.Terms) -> None:
        ask = grant.Ask(lease_id, job=f"j-{lease_id}", node=NODE, notice_ms=30_000)
        quotes = {lease_id: grant.Quote(RATE_NANO)}
        decided = grant.authorize({}, [ask], quotes, FUNDS, self.now_ms(), terms)
        self.terms[lease_id] = terms
        self._write(decided.rows[0], None)

    async def settle(
        self, spool_id: str, reports: Iterable[lease.Report]
    ) -> tuple[lease.Answer, ...]:
        if not self.reachable:
            raise _cut()
        answers = [self._settle(spool_id, report) for report in reports]
        if self.lose_answers:
            self.lose_answers -= 1
            raise _cut()
        return tuple(answers)

    def _settle(self, spool_id: str, report: lease.Report) -> lease.Answer:
        lease_id = report.lease_id
        row = self.rows[lease_id]
        phase = grant.Phase(int(report.phase))
        told = grant.Report(lease_id, spool_id, phase, report.final, dict(report.counters))
        settled = grant.settle(
            [row],
            {lease_id: told},
            {lease_id: grant.Quote(RATE_NANO)},
            FUNDS,
            self.now_ms(),
            self.terms[lease_id],
        )
        self._write(settled.rows[0], row)
        said = settled.answers[0]
        return lease.Answer(
            lease_id, said.valid_for_ms, said.last, said.reason, said.segment,
            said.final_acknowledged,
        )  # fmt: skip

    def _write(self, row: GrantRow, before: GrantRow | None) -> None:
        if row is not before:
            self.effects.append(grant.effect(before, row))
            self.rows[row.lease_id] = row

    def charged_nano(self, lease_id: str) -> int:
        """By the postings, one by one."""
        return sum(one.charge_nano for one in self.effects if one.lease_id == lease_id)

    def final(self) -> set[str]:
        return {k for k, row in self.rows.items() if row.state is State.FINAL}


class Scheduler:
    """A desired set, and what the node has said of it."""

    def __init__(self) -> None:
        self.generation = 1
        self.tasks: dict[str, Task] = {}
        self.stops: dict[str, StopOrder] = {}
        self.reachable = True
        self.seen: dict[str, Seen] = {}
        self.endings: list[tuple[str, int, str]] = []

    async def sync(
        self, spool: Spool, boot_id: str, seen: Iterable[Seen], devices: Iterable[str]
    ) -> Desired:
        del spool, boot_id, devices
        if not self.reachable:
            raise _cut()
        for one in seen:
            before = self.seen.get(one.sighting.lease_id)
            ended = one.sighting.exit
            if ended is not None and (before is None or before.sighting.exit is None):
                self.endings.append((one.sighting.lease_id, ended.code, ended.reason))
            self.seen[one.sighting.lease_id] = one
        tasks = tuple((task, key.encode()) for key, task in self.tasks.items())
        return Desired(self.generation, tasks, tuple(self.stops.values()))

    def decode(self, raw: bytes) -> Task:
        return self.tasks[raw.decode()]


class Spans:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def record(self, name: str, traceparent: str, **more: Any) -> None:
        del traceparent, more
        self.names.append(name)


class CutOff:
    """One node, its billing and its scheduler, and a clock that moves when told."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.host = ThisHost(self.clock, shim.boot_id())
        self.billing, self.scheduler = Billing(self.clock), Scheduler()
        self.sandboxes = NoopSandboxes(self.clock)
        self.random = random.Random(seed)
        self.broker = LoopbackBroker()
        self.heard: list[tuple[int, int, int, int]] = []  # stream, sequence, time, energy
        self.reader = TelemetryReader(Bus(self.broker.wire(), name="metrics"), self._hear)
        self.largest_bytes = 0
        self.born_ms = self.wall_ms()
        self.agent_starts()

    def _hear(self, report: Report) -> None:
        row = report.devices.energy_mj
        self.heard.append((report.stream, report.sequence, report.time_unix_ms, row[0]))

    def wall_ms(self) -> int:
        return round(self.clock.wall().timestamp() * 1000)

    def agent_starts(self) -> None:
        """What ``bootstrap`` does, on this clock."""
        files = LeaseFiles(self.folder, kept_bytes=1 << 30, kept_hours=168)
        self.spool_file = SpoolFile(self.folder / "spool.sqlite")
        self.book = recover(
            self.spool_file, self.host, self.scheduler, self.sandboxes, files, (), RandomIds()
        )
        scrubber = Scrubber(self.book, self.sandboxes, files, self.clock, emulated=True)
        bundles = BundleFolder(self.folder / "bundles", lambda _digest: _nothing())
        preparer = Preparer(NODE, files, bundles, PreparedFolder(self.folder), "/bin/sh")
        self.settler = Settler(
            self.book, self.host, self.sandboxes, self.billing, 5000, self.random
        )
        self.syncer = Syncer(self.book, self.host, self.scheduler, files, (), 10_000, self.random)
        self.spans = Spans()
        self.reconciler = Reconciler(
            self.book,
            self.host,
            self.sandboxes,
            files,
            preparer,
            self.settler,
            scrubber,
            Watch(self.book.work),
            TaskSpans(self.spans, self.clock),
            30_000,
        )
        bus = Bus(self.broker.wire(), name="agent", node_id=NODE)
        self.wire: Any = bus.wire
        self.telemetry = TelemetrySpool(self.folder / "telemetry.sqlite", shim.boot_id(), 32 << 20)
        self.backfill = Backfill(
            bus, self.telemetry, lambda: self.clock.boottime_ns() // 1_000_000, self.wall_ms
        )

    async def agent_ends(self) -> None:
        """Asked to, or killed: what is on disk is the same but for ten samples."""
        await self.settled()
        self.backfill.close()
        self.telemetry.close()
        await self.book.close()

    async def settled(self) -> None:
        """Whatever runs beside is over."""
        mine = asyncio.current_task()
        while beside := [task for task in asyncio.all_tasks() if task is not mine]:
            await asyncio.wait(beside, timeout=10.0)

    async def turns(self, count: int) -> None:
        """The node's loops, a few times, without time passing."""
        for _ in range(count):
            await self.syncer.sync()
            await self.reconciler.turn()
            await self.settled()

    def second(self, leases: tuple[str, ...]) -> None:
        """One second with its sample: eight devices, and these leases."""
        self.clock.advance(1.0)
        at = self.clock.boottime_ns() // 1_000_000_000
        draw, count = self.random.randrange, len(leases)
        identity = NodeIdentity(
            "edge-host",
            "1.0",
            shim.boot_id(),
            tuple(DeviceIdentity(x, "A100-80GB", "nvidia", f"0000:{x}", 80 << 30) for x in DEVICES),
            leases,
        )
        devices = DeviceReadings(
            utilisation_milli=tuple(draw(1001) for _ in DEVICES),
            memory_used_bytes=tuple(draw(80 << 30) for _ in DEVICES),
            power_mw=tuple(draw(400_000) for _ in DEVICES),
            temperature_milli_c=tuple(30_000 + draw(50_000) for _ in DEVICES),
            energy_mj=(at, *(at * 300_000 + draw(1000) for _ in DEVICES[1:])),
        )
        host = HostReadings(at * 10**9, draw(1 << 40), at * 10**6, at * 10**5, draw(1 << 42))
        of_leases = LeaseReadings(
            tuple(at * 10**9 + draw(10**9) for _ in leases),
            tuple(draw(1 << 34) for _ in leases),
            (1 << 34,) * count,
            tuple(at * 4096 + draw(4096) for _ in leases),
            tuple(at * 8192 + draw(4096) for _ in leases),
            tuple(draw(64) for _ in leases),
        )
        self.backfill.offer(
            sample(
                time_unix_ms=self.wall_ms(),
                identity=identity,
                devices=devices,
                host=host,
                leases=of_leases,
            )
        )

    def measure(self) -> None:
        """The largest that all of the spool has been on disk."""
        parts = [*self.folder.glob("spool.sqlite*"), *self.folder.glob("telemetry.sqlite*")]
        self.largest_bytes = max(self.largest_bytes, sum(path.stat().st_size for path in parts))

    def cut(self, *, off: bool) -> None:
        """The mesh, the scheduler and billing, all at once."""
        self.billing.reachable = self.scheduler.reachable = not off
        if off:
            self.wire.disconnect()
        else:
            self.wire.reconnect()

    def lend(self, lease_id: str, span_ms: int, terms: grant.Terms) -> None:
        """A task that would run for so long, under grants of such terms."""
        self.billing.authorize(lease_id, terms)
        self.scheduler.tasks[lease_id] = Task(
            lease_id,
            f"projects/p/jobs/j-{lease_id}/tasks/0",
            "tenants/t",
            commands=("true",),
            env=(("GRIDLEASE_EMULATED_MS", str(span_ms)),),
            notice_ms=30_000,
        )
        self.scheduler.generation += 1

    def ran_ns(self) -> Mapping[str, int]:
        """By the node's last word to the scheduler."""
        found = {}
        for lease_id, one in self.scheduler.seen.items():
            if one.sighting.exit is not None:
                found[lease_id] = one.sighting.exit.ran_ns
        return found


async def _nothing() -> Any:
    yield b""
