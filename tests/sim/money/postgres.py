"""The same worlds on real PostgreSQL: calls beside each other, backends and the server killed.

The schema is the real one but for its clock, which is the world's: a function that hides the
server's. What happens within a moment happens at the same time, so a seed fixes what is asked,
not who comes first.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path

import asyncpg
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.close import Closure, close
from gridlease_billing.credit import journal_summary
from gridlease_billing.domain.grant_row import Cause, State
from gridlease_kernel.faults import Fault
from gridlease_mesh import meter_report
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer
from gridlease_store.connect import with_jsonb
from gridlease_store.migrate import migrate
from gridlease_testkit.postgres import TestServer, start_server

from tests.sim.money.broken import insist
from tests.sim.money.oracle import due_nano
from tests.sim.money.run import Outcome
from tests.sim.money.town import PROFILES, TERMS, Town

WORLD = 25_000  # events of one world, which has a database of its own
_CHECK_EVERY = 2_500
_MOMENT_MS = 250
_TOGETHER = 16
_DRAIN_MOMENTS = 20_000
_KILLS = 0.03  # of moments: backends; of the server, a sixtieth of that
_CLOCK = """
CREATE TABLE sim_clock (ms int8 NOT NULL);
INSERT INTO sim_clock VALUES ({ms});
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT timestamptz 'epoch' + ms * interval '1 millisecond' FROM billing.sim_clock $$;
GRANT SELECT ON sim_clock TO {role};
ALTER FUNCTION tick SET search_path = billing, pg_catalog;
SELECT create_months({ms}, 3);
"""
# Each of them finds nothing.
_WRONG = {
    "a journal does not sum to zero":
        "SELECT journal FROM entry GROUP BY journal HAVING sum(amount) <> 0",
    "a hold is negative":
        "SELECT l.id FROM lease l WHERE l.held_nano < (SELECT coalesce(sum(m.rated_nano"
        " - m.base_nano), 0) FROM meter m WHERE m.lease = l.id)",
    "a job is over its budget":
        "SELECT job FROM lease WHERE budget_nano IS NOT NULL GROUP BY job"
        " HAVING sum(charged_nano + held_nano) > max(budget_nano)",
    "charges are not posted":
        "SELECT tenant FROM (SELECT l.tenant, sum(l.charged_nano + (SELECT coalesce(sum("
        "m.rated_nano - m.base_nano), 0) FROM meter m WHERE m.lease = l.id)) AS charged"
        " FROM lease l GROUP BY l.tenant) AS c WHERE charged <> -(SELECT coalesce(sum(amount), 0)"
        " FROM entry e JOIN account a ON a.id = e.account JOIN journal j ON j.id = e.journal"
        " WHERE a.kind = 'tenant_prepaid' AND a.tenant = c.tenant AND j.kind = 'charge')",
    "lines are not the charge":
        "SELECT l.id FROM lease l WHERE state = 'FINAL' AND charged_nano <> (SELECT"
        " coalesce(sum(amount_nano), 0) FROM line WHERE lease = l.id AND class = 'usage')",
    "late usage is not posted":
        "SELECT 1 WHERE (SELECT coalesce(sum(amount_nano), 0) FROM line WHERE class ="
        " 'correction') <> -(SELECT coalesce(sum(e.amount), 0) FROM entry e JOIN account a"
        " ON a.id = e.account WHERE a.kind = 'receivable')",
    "two lines of one segment":
        "SELECT lease FROM line WHERE class = 'usage' GROUP BY lease, segment, meter"
        " HAVING count(*) > 1",
}  # fmt: skip


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


class Place:
    """One world's database, and who kills what works on it."""

    def __init__(self, tester, name):
        self.tester, self.name = tester, name
        self.dsn = tester.dsn(name)
        self.pool = self.admin = None

    async def open(self, ms):
        owner = await asyncpg.connect(self.dsn, server_settings={"search_path": "billing"})
        await owner.execute(_CLOCK.format(ms=ms, role=ROLE))
        await owner.close()
        self.admin = await self._connect()
        settings = {"search_path": "billing,pg_catalog", "role": ROLE, "statement_timeout": "20000"}
        self.pool = await asyncpg.create_pool(
            self.dsn, min_size=1, max_size=_TOGETHER, command_timeout=20, init=with_jsonb,
            server_settings=settings,
        )  # fmt: skip

    async def _connect(self):
        settings = {"search_path": "billing", "gridlease.tenant": "*", "application_name": "sim"}
        return await asyncpg.connect(self.dsn, server_settings=settings)

    async def set_clock(self, ms):
        await self.admin.execute("UPDATE sim_clock SET ms = $1", ms)

    async def kill_backends(self, count):
        await self.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name <> 'sim'"
            " ORDER BY random() LIMIT $1) AS t", count,
        )  # fmt: skip

    async def kill_server(self):
        """All of it at once, and up again."""
        os.kill(self.tester.server.pid, signal.SIGKILL)
        self.tester.server.start()
        self.admin.terminate()
        self.admin = await self._connect()

    async def close(self):
        self.pool.terminate()
        await self.admin.close()
        await self.tester.drop(self.name)


class Run:
    """Moments of one world."""

    def __init__(self, town, place, random):
        self.town, self.place, self.random = town, place, random
        self.serial = 0

    async def moment(self):
        """What happens together, and what is killed meanwhile."""
        town = self.town
        acts = town.pop_together(_MOMENT_MS, _TOGETHER)
        await self.place.set_clock(town.clock.database_ms())
        tasks = [asyncio.ensure_future(act(*args)) for act, args in acts]
        if town.fault("server killed", town.profile.crash / 60):
            await self._later(tasks, self.place.kill_server)
        elif town.fault("backends killed", town.profile.crash):
            await self._later(tasks, self.place.kill_backends, self.random.randrange(1, 6))
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done

    async def _later(self, tasks, kill, *args):
        """In the middle of it."""
        await asyncio.wait(tasks, timeout=self.random.random() * 0.02)
        await kill(*args)

    async def check(self):
        """Everything that the books themselves must say."""
        for what, query in _WRONG.items():
            found = await self.place.admin.fetch(query)
            insist(not found, what, [dict(it) for it in found[:3]])
        summary = await self._quietly(lambda: journal_summary(self.town.books))
        insist(summary.sum_nano == 0 and summary.off_balance == 0, "off balance", summary)

    async def _quietly(self, work):
        """A server that was killed lets the pool down once or twice."""
        for _ in range(_TOGETHER + 2):
            try:
                return await work()
            except Fault:
                continue
        raise AssertionError("the database does not come back")

    async def drain(self):
        """No more faults: everything comes to its end."""
        town = self.town
        town.quiet = True
        live = await self.place.admin.fetch("SELECT id FROM lease WHERE state <> 'FINAL'")
        for lease in live:
            told = [Closure(lease["id"], 0, Cause.STOPPED)]
            await self._quietly(lambda told=told: close(town.books, told, TERMS))
        for _ in range(_DRAIN_MOMENTS):
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

    async def truth(self, outcome):
        """Each charge beside the true counters of its node, and the rates that it was told."""
        town, admin = self.town, self.place.admin
        alarmed = {it["lease"] for it in await admin.fetch(
            "SELECT lease FROM alarm WHERE kind = 'RUN_AHEAD_OF_TIME'")}  # fmt: skip
        late = {it["lease"]: it["amount"] for it in await admin.fetch(
            "SELECT lease, sum(amount_nano)::int8 AS amount FROM line WHERE class = 'correction'"
            " GROUP BY lease")}  # fmt: skip
        ids = [it["id"] for it in await admin.fetch("SELECT id FROM lease ORDER BY id")]
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


def profile_of(number):
    """A world's profile: as in memory, but larger, for its calls are beside each other."""
    name = sorted(PROFILES)[number % len(PROFILES)]
    found = PROFILES[name]
    crash = min(found.crash, _KILLS)
    return name, replace(found, crash=crash, nodes=10, leases=60, turn_ms=8_000, tenants=6)


async def live(tester, template, seed, number, events, outcome, each_end=None):
    """One world. ``each_end``: called with its run before it is taken down."""
    _, profile = profile_of(number)
    name = await tester.create(template)
    place = Place(tester, name)
    pen = Pen()

    def books(town):
        return None, Watcher()

    town = Town(f"{seed}:{number}", profile, pen, books)
    await place.open(town.clock.database_ms())
    town.books = PostgresBooks(place.pool, town.clock, 600_000)
    town.settlers = [town.new_settler() for _ in range(2)]
    run = Run(town, place, town.random)
    due = _CHECK_EVERY
    try:
        await town.begin()
        while town.events < events:
            await run.moment()
            if town.events >= due:
                await run.check()
                due = town.events + _CHECK_EVERY
        await run.drain()
        await run.check()
        insist(not await place.admin.fetch("SELECT * FROM broken_links()"), "a chain is broken")
        await run.truth(outcome)
        if each_end is not None:
            await each_end(run)
    finally:
        outcome.events, outcome.calls, outcome.met = town.events, town.calls, town.met
        for settler in town.settlers:
            await settler.close()
        await place.close()


async def _runs(tester, seed, events, each, first, each_end):
    template = await tester.template(
        "billing", lambda owner: migrate(owner, "billing", "gridlease_billing", login=True)
    )
    total, number = Outcome(), first
    while total.events < events and not total.broken:
        outcome = Outcome(worlds=1)
        try:
            await live(tester, template, seed, number, min(each, events), outcome, each_end)
        except Exception as broken:  # noqa: BLE001 - whatever it is, the run says which world
            words = " ".join([type(broken).__name__, *map(str, broken.args)])
            where = traceback.format_exc(limit=-8)
            which = f"{seed}:{number} ({profile_of(number)[0]}) after {outcome.events}"
            outcome.broken.append(f"{which}: {words} {where}")
        total.add(outcome)
        number += 1
    return total


def run(seed, events, each=WORLD, first=0, each_end=None):
    """Worlds of a run on one server of their own, until they have had as many events."""
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    folder.chmod(0o711)
    server = start_server(folder / "postgres", None)
    try:
        return asyncio.run(_runs(TestServer(server), seed, events, each, first, each_end))
    finally:
        server.stop(timeout_s=10.0)
        shutil.rmtree(folder, ignore_errors=True)
