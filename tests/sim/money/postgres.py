"""The same worlds on real PostgreSQL: calls beside each other, backends and the server killed.

The schema is the real one but for its clock, which is the world's: a function that hides the
server's. What happens within a moment happens at the same time, so a seed fixes what is asked,
not who comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import shutil
import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.close import Closure, close
from gridlease_billing.credit import journal_summary
from gridlease_billing.domain.grant_row import Cause, State
from gridlease_kernel.faults import Unreachable
from gridlease_mesh import meter_report
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer
from gridlease_store.binaries import find_bin_dir
from gridlease_store.embedded import EmbeddedPostgres
from gridlease_store.migrate import migrate
from gridlease_testkit.postgres import SETTINGS, TestServer, start_server

from tests.sim.money.auditor import Auditor
from tests.sim.money.bills import documents
from tests.sim.money.broken import insist
from tests.sim.money.checks import Books
from tests.sim.money.office import Office
from tests.sim.money.oracle import due_nano
from tests.sim.money.place import CONNECTIONS, STARTER, Place
from tests.sim.money.run import Outcome
from tests.sim.money.town import PROFILES, TERMS, Town

WORLD = 20_000  # events of one world, which has a database of its own
_CHECK_EVERY = 2_500  # events, and after what was killed
_AUDIT_EVERY = 8_000  # events: each account explained, each new document verified
_DRAIN_MOMENTS = 4_000
_CLOSE_AGAIN = 50  # moments
# In a month's middle; on the last evening of a month; of a year.
_STARTS_MS = (1_800_000_000_000, 1_801_418_400_000, 1_830_283_200_000)
_KILLS = 5  # for each crash in memory: of backends; of the server, a twentieth of that
_MOST_KILLS = 0.3
# A server that is killed must not lose what it has written, and the system keeps that: nothing has
# to be flushed. But a write may be cut between two halves of a page: whole pages go to the log.
_SETTINGS = {**SETTINGS, "full_page_writes": "on"}


@dataclass(frozen=True, slots=True)
class Size:
    """Of a world. A node reports all that it runs in one call, so the more leases the quicker."""

    leases: int
    nodes: int
    batch: int
    moment_ms: int
    office_ms: int  # the longest between two acts of the back office
    together: int = 24


LARGE = Size(leases=320, nodes=10, batch=12, moment_ms=2_000, office_ms=8_000)
SMALL = Size(leases=60, nodes=10, batch=1, moment_ms=250, office_ms=1_500)
QUICK = Size(leases=40, nodes=4, batch=4, moment_ms=1_000, office_ms=4_000)


class Pen:
    """Nodes' real keys."""

    def __init__(self):
        self._signers = {}
        self._of_lease = {}
        self.holds = meter_report.holds

    def key(self, node):
        seed, public = new_user_key()
        self._signers[node] = Signer(seed)
        return public

    def owns(self, lease, node):
        self._of_lease[lease] = node

    def sign(self, report):
        signer = self._signers.get(self._of_lease.get(report.lease_id, ""))
        if signer is None:
            return report
        counters = [(segment, meter, n) for (segment, meter), n in report.counters.items()]
        text = meter_report.text(
            report.lease_id, report.spool_id, int(report.phase), report.final, counters
        )
        return replace(report, text=text, signature=signer.sign(text.encode()))


class Watcher:
    """What is seen from outside while calls are under way."""

    def __init__(self):
        self.lies = set()

    def lied(self, lease):
        self.lies.add(lease)

    def begin(self, node, reports):
        pass

    def end(self, answers):
        pass

    def answered(self, answer):
        insist(answer.reason != "PARKED", "a lease's books contradict themselves", answer)


class Run:
    """Moments of one world."""

    def __init__(self, town, place, size):
        self.town, self.place, self.size = town, place, size
        self.random = town.random
        self.books = Books()
        self.office = None
        self.auditor = Auditor(self)
        self._audit_due = _AUDIT_EVERY
        self._whole_due = 0

    async def moment(self):
        """What happens together, and what is killed meanwhile; then the books are looked at."""
        town, place = self.town, self.place
        acts = town.pop_together(self.size.moment_ms, self.size.together)
        await place.set_clock(town.clock.database_ms())
        tasks = [asyncio.ensure_future(act(*args)) for act, args in acts]
        if killed := town.fault("server killed", town.profile.crash / 20):
            await self._later(tasks, place.kill_server)
        elif killed := town.fault("backends killed", town.profile.crash):
            await self._later(tasks, place.kill_backends, self.random.randrange(1, 6))
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done
        await self.books.each(place.admin)
        if killed or town.events >= self._whole_due:
            await self.check()

    async def _later(self, tasks, kill, *args):
        """In the middle of it."""
        await asyncio.wait(tasks, timeout=self.random.random() * 0.04)
        await kill(*args)

    async def check(self):
        """Everything that the books themselves must say."""
        self._whole_due = self.town.events + _CHECK_EVERY
        await self.books.whole(self.place.admin)
        if self.town.events >= self._audit_due or self.town.quiet:
            self._audit_due = self.town.events + _AUDIT_EVERY
            await self.auditor.look()
            await documents(self)

    async def asked(self, ask):
        """What a use case answers, whatever was killed before."""
        return await self._quietly(lambda: ask(self.town.books))

    async def read(self, work):
        """One transaction."""
        return await self._quietly(lambda: self.town.books.run(work))

    async def _quietly(self, work):
        """A server that was killed lets the pool down once or twice."""
        for _ in range(CONNECTIONS + 2):
            try:
                return await work()
            except Unreachable:
                continue
        raise AssertionError("the database does not come back")

    async def drain(self):
        """No more faults: everything comes to its end.

        What was asked for long ago may be admitted only now; so all is closed, and closed again.
        """
        town = self.town
        town.quiet = True
        for moment in range(_DRAIN_MOMENTS):
            if moment % _CLOSE_AGAIN == 0:
                live = await self.place.admin.fetch("SELECT id FROM lease WHERE state <> 'FINAL'")
                told = [Closure(it["id"], 0, Cause.STOPPED) for it in live]
                await self._quietly(lambda told=told: close(town.books, told, TERMS))
            await self.moment()
            if any(it.tasks for it in town.nodes.values() if not it.dead):
                continue
            town.clock.now_ms += TERMS.late_after_ms  # for those whose nodes are dead
            if not await self.place.admin.fetchval(
                "SELECT count(*) FROM lease WHERE state <> 'FINAL'"
            ):
                break
        live = await self.place.admin.fetch("SELECT id FROM lease WHERE state <> 'FINAL' LIMIT 3")
        insist(not live, "leases never end", live)
        held = await self.place.admin.fetchval("SELECT coalesce(sum(held), 0) FROM balance")
        insist(held == 0, "a hold is left", held)
        await self.check()
        summary = await self._quietly(lambda: journal_summary(town.books))
        insist(summary.sum_nano == 0 and summary.off_balance == 0, "off balance", summary)
        insist(not await self.place.admin.fetch("SELECT * FROM broken_links()"), "a broken chain")

    async def truth(self, outcome):
        """Each charge beside the true counters of its node, and the rates that it was told."""
        town, admin = self.town, self.place.admin
        alarmed = {it["lease"] for it in await admin.fetch(
            "SELECT lease FROM alarm WHERE kind = 'RUN_AHEAD_OF_TIME'")}  # fmt: skip
        late = {it["lease"]: it["amount"] for it in await admin.fetch(
            "SELECT lease, sum(amount_nano)::int8 AS amount FROM line WHERE class = 'correction'"
            " AND meter = 'run' GROUP BY lease")}  # fmt: skip
        ids = [it["id"] for it in await admin.fetch("SELECT id FROM lease ORDER BY id")]
        await self.auditor.counted(alarmed)
        for first in range(0, len(ids), 500):
            some = ids[first : first + 500]

            async def read(tx, some=some):
                return await tx.leases.lock(some)

            for name, stored in (await town.books.run(read)).items():
                self._one(stored.row, name in alarmed, late.get(name, 0), outcome)

    def _one(self, row, alarmed, late_nano, outcome):
        name, town = row.lease_id, self.town
        insist(row.state is State.FINAL, "not final", row)
        told = row.charged_nano + late_nano
        outcome.leases += 1
        outcome.told_nano += told
        outcome.late_nano += late_nano
        frozen = {it.number: it.frozen_ns for it in row.segments}
        insist(row.charged_nano == due_nano(row.segments, row.counters, frozen), "not due", row)
        if name in town.oracle.lies:
            return
        node = town.nodes.get(row.ask.node)
        task = node and (node.ended.get(name) or node.tasks.get(name))
        if task is None:
            insist(told == 0 or node.dead, "charged for what nobody ran", row)
            return
        for segment, rate in task.rates.items():
            insist(rate == row.segments[segment - 1].rate_nano_per_hour, "told another rate", row)
        truth = sum(ns * task.rates[n] // 3_600_000_000_000 for n, ns in task.run.items())
        if alarmed or name not in node.ended:
            insist(row.charged_nano <= truth, "charged more than ran", row, task.run)
            return
        if town.profile.jump or town.profile.drift_ppm:
            ran = {(segment, "run"): ns for segment, ns in task.run.items()}
            truth = due_nano(row.segments, ran, {})
        outcome.drift_nano += abs(told - truth)
        insist(told == truth, "charged is not what ran", row, late_nano, task.run)


def profile_of(number, size):
    """A world's profile: as in memory, but larger, for its calls are beside each other."""
    name = sorted(PROFILES)[number % len(PROFILES)]
    found = PROFILES[name]
    return name, replace(
        found,
        crash=min(found.crash * _KILLS, _MOST_KILLS),
        leases=size.leases,
        nodes=size.nodes,
        batch=size.batch,
        pay_nano=found.pay_nano * size.leases // 20,
        turn_ms=8_000,
        office_ms=20_000,
        tenants=6,
    )


async def live(tester, job, outcome, profile):
    """One world."""
    template = await tester.template(
        "billing", lambda owner: migrate(owner, "billing", "gridlease_billing", login=True)
    )
    place = Place(tester, await tester.create(template))
    pen = Pen()

    def books(town):
        return None, Watcher()

    town = Town(f"{job.seed}:{job.number}", profile, pen, books)
    town.clock.now_ms = _STARTS_MS[job.number % len(_STARTS_MS)]
    await place.open(town.clock.database_ms())
    town.books = PostgresBooks(place.pool, town.clock, 600_000)
    town.settlers = [town.new_settler() for _ in range(2)]
    run = Run(town, place, job.size)
    run.office = Office(town, place, f"{job.seed}:{job.number}", job.size.office_ms)
    try:
        await run.office.begin()
        await town.begin()
        while town.events < job.events:
            await run.moment()
            run.office.sleep(min(4_000, job.events // 2))
        await run.drain()
        await run.truth(outcome)
        if job.each_end is not None:
            await job.each_end(run)
    finally:
        outcome.events, outcome.calls, outcome.met = town.events, town.calls, town.met
        for settler in town.settlers:
            await settler.close()
        await place.close()


@dataclass(frozen=True, slots=True)
class Job:
    """A world of a run. ``each_end``: called with its ``Run`` before it is taken down."""

    seed: int
    number: int
    events: int
    size: Size
    each_end: object = None
    changes: dict = field(default_factory=dict)  # of its profile


def world(tester, job):
    """One world on a server, from its first price to its last lease's end."""
    name, profile = profile_of(job.number, job.size)
    outcome = Outcome(worlds=1)
    try:
        asyncio.run(live(tester, job, outcome, replace(profile, **job.changes)))
    except Exception as broken:  # noqa: BLE001 - whatever it is, the run says which world
        words = " ".join([type(broken).__name__, *map(str, broken.args)])
        where = traceback.format_exc(limit=-8)
        which = f"{job.seed}:{job.number} ({name}) after {outcome.events}"
        outcome.broken.append(f"{which}: {words} {where}")
    return outcome


_OWN = {}  # this process's folder, and its server once it has one


def _begin(folder):
    logging.disable(logging.CRITICAL)  # lies and crashes are meant
    _OWN["folder"] = Path(folder) / str(os.getpid())


def _world(job):
    if "tester" not in _OWN:
        started = STARTER.submit(start_server, _OWN["folder"], None, _SETTINGS)
        _OWN["tester"] = TestServer(started.result())
    return world(_OWN["tester"], job)


@contextlib.contextmanager
def _worlds(processes, folder, jobs):
    if processes == 1:
        _OWN["folder"] = folder / "own"
        try:
            yield map(_world, jobs)
        finally:
            _OWN.clear()
        return
    pool = multiprocessing.get_context("spawn").Pool(processes, _begin, [str(folder)])
    try:
        yield pool.imap_unordered(_world, jobs)
    finally:
        pool.terminate()
        pool.join()


def run(seed, events, *, each=WORLD, worlds=None, size=LARGE, each_end=None, changes=None,
        processes=1, told=None):  # fmt: skip
    """Worlds of a run, each process's on a server of its own, until they have had as many events.

    ``worlds``: these only, whatever their events. ``changes``: of their profiles. ``told``: called
    with what was found so far, after each world.
    """
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    folder.chmod(0o711)
    numbers = range(events // each + processes + 1) if worlds is None else worlds
    jobs = (Job(seed, n, min(each, events), size, each_end, changes or {}) for n in numbers)
    total = Outcome()
    try:
        with _worlds(processes, folder, jobs) as outcomes:
            for outcome in outcomes:
                total.add(outcome)
                if told is not None:
                    told(total)
                if (total.events >= events and worlds is None) or total.broken:
                    break
    finally:
        for it in folder.iterdir():
            EmbeddedPostgres(it, find_bin_dir()).stop(timeout_s=10.0)
        shutil.rmtree(folder, ignore_errors=True)
    return total
