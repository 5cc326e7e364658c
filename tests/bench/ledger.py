"""``./dev bench ledger``: counters folded, charged and posted, beside COPY of as many rows.

One event is one counter advance of a distinct (lease, segment, meter). How many advance between
two reports of one lease is a matter of the agent (domain/lease.py, domain/meters.py): run always;
energy where its devices tell energy or power; egress where it has a network and sends. Storage and
provision are in the catalogue, and no agent tells them yet. So a closed task on a CPU has one, a
closed task on a GPU two, a task with a network on a GPU three. What counts here is two; one, three
and four (the catalogue without provision, which stands still while a task runs) stand beside it.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.authorize import authorize
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import balance
from gridlease_billing.domain.grant_row import Ask, Phase, Report, Terms
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.domain.tick import CATALOGUE, Known
from gridlease_billing.prices import create_price
from gridlease_billing.settings import Settings
from gridlease_billing.ticks import Settler, Tick, fold_all
from gridlease_kernel.clock import SystemClock
from gridlease_mesh import meter_report
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool
from gridlease_testkit.postgres import TestServer, start_server
from gridlease_testkit.waiting import elapsed

from tests.bench import children, figures

_TENANTS = 1_000
_SENT = 2  # meters that advance together: of these the ratio is
_COUNTS = (1, _SENT, 3, 4)  # meters a lease, in the catalogue's order
_PLACES = 8  # leases of one node
_EVERY_S = 10  # each node tells what runs
_BURST = 64  # calls that renew at once, where many nodes ask together
_HOUR_MS = 3_600_000
_PAID = 10**15
_RATE = 36 * 10**9
_SETUP = """
INSERT INTO account (kind, tenant)
SELECT 'tenant_prepaid', 'tenants/' || n FROM generate_series(0, {tenants} - 1) AS n;
INSERT INTO balance (account) SELECT id FROM account WHERE kind = 'tenant_prepaid';
SELECT post('credit', NULL, 'bench', 1,
    array_agg(id) || (SELECT id FROM account WHERE kind = 'cash' AND currency = 'USD'),
    array_agg({paid}::int8) || -sum({paid})::int8)
FROM account WHERE kind = 'tenant_prepaid';
CREATE TABLE bench_copy (lease text, segment int, meter text, cumulative int8,
    PRIMARY KEY (lease, segment, meter));
"""
_LEASES = """
INSERT INTO lease (id, job, gang, tenant, project, node, chip, quantity_milli, tier, priority,
    attempt, notice_ms, rate_nano_per_hour, price_version, grant_ms, state, ends_at_ms, spool_id,
    held_nano, charged_nano, opened_ms)
SELECT 'ls-' || lpad(n::text, 20, '0'), 'projects/p/jobs/j' || n, '', 'tenants/' || n % {tenants},
    'projects/p', 'n' || n / {places}, 'H', 1000, 'ON_DEMAND', 0, 0, 0, {rate}, 1, {hour},
    'OPEN', {now} + {hour} * 2, 's', {hold}, 0, {now}
FROM generate_series({first}, {last}) AS n;
INSERT INTO segment SELECT id, 1, {rate}, 1, {now} - {hour}, {now} + {hour}, NULL
FROM lease WHERE opened_ms = {now};
INSERT INTO meter (lease, segment, rate_nano_per_hour, cap, starts_ms, quick_until_ms, account)
SELECT l.id, 1, {rate}, {hour}::int8 * 2000000, {now} - {hour}, {now} + {hour}, a.id
FROM lease AS l JOIN account AS a ON a.tenant = l.tenant AND a.kind = 'tenant_prepaid'
WHERE l.opened_ms = {now} ORDER BY l.id;
UPDATE balance SET held = (SELECT coalesce(sum(held_nano), 0) FROM lease AS l
    JOIN account AS a ON a.tenant = l.tenant WHERE a.id = balance.account);
VACUUM ANALYZE account;
VACUUM ANALYZE lease;
VACUUM ANALYZE meter;
VACUUM ANALYZE balance;
"""


class World:
    """Billing's database with open leases, and short words for what is done to it."""

    def __init__(self, dsn):
        self.dsn = dsn
        self._ran_ns = 0

    def later(self):
        """Run time, a second on at each call."""
        self._ran_ns += 10**9
        return self._ran_ns

    async def begin(self):
        await migrate(self.dsn, "billing", "gridlease_billing", login=True)
        settings = {"search_path": "billing", "gridlease.tenant": "*"}
        self.owner = await asyncpg.connect(self.dsn, server_settings=settings)
        self.pool = await connect_pool(self.dsn, schema="billing", role=ROLE, max_size=4)
        self.books = PostgresBooks(self.pool, SystemClock(), 600_000)
        for statement in _SETUP.format(tenants=_TENANTS, paid=_PAID).strip(";\n").split(";\n"):
            await self.owner.execute(statement)
        await create_price(self.books, NewPrice("H", "ON_DEMAND", _RATE, None, "bench"))
        self.leases = 0

    async def open(self, upto):
        """Open leases until there are ``upto``; those that a tick may move."""
        now = await self.owner.fetchval("SELECT floor(extract(epoch FROM now()) * 1000)::int8")
        words = {
            "tenants": _TENANTS,
            "places": _PLACES,
            "rate": _RATE,
            "hour": _HOUR_MS,
            "now": now,
            "hold": _RATE * 3,
            "first": self.leases,
            "last": upto - 1,
        }
        for statement in _LEASES.format(**words).strip(";\n").split(";\n"):
            await self.owner.execute(statement)
        self.leases = upto
        found = await self.owner.fetch(
            "SELECT m.id, m.account, l.id AS lease, l.node, m.quick_until_ms FROM meter m"
            " JOIN lease l ON l.id = m.lease ORDER BY m.id"
        )
        return [
            (
                it["lease"],
                Known(
                    it["id"],
                    it["node"],
                    "s",
                    "",
                    1,
                    _RATE,
                    now,
                    it["quick_until_ms"],
                    it["account"],
                ),
            )
            for it in found
        ]

    async def end(self):
        await self.owner.close()
        self.pool.terminate()


def cpu_s(pids):
    return sum(children.cpu_s(pid) for pid in pids)


async def _pids(world):
    return [
        it["pid"]
        for it in await world.owner.fetch(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
    ]


class Cost:
    """CPU seconds of this process and of the server's backends, and wall time, of a block."""

    def __init__(self, pids):
        self._pids = pids

    def __enter__(self):
        self._start = (cpu_s(self._pids), time.process_time(), time.perf_counter())
        return self

    def __exit__(self, *_):
        server, client, wall = self._start
        self.cpu_s = cpu_s(self._pids) - server + time.process_time() - client
        self.wall_s = time.perf_counter() - wall


def _ticks(known, ran_ns, meters):
    """Each lease's report as it would be decoded."""
    empty = (0,) * (len(CATALOGUE) - len(meters))
    return [
        Tick(who, Report(lease, "s", Phase.STARTING), (ran_ns + n,) * len(meters) + empty)
        for n, (lease, who) in enumerate(known)
    ]


async def folding(world, leases, meters, rounds, started):
    """Wall ms of each fold of all leases, and events per CPU second of folds and of COPY."""
    known = await world.open(leases) if world.leases < leases else started
    walls, events, spent = [], 0, 0.0
    for turn in range(1, rounds + 2):
        pids = await _pids(world)
        ticks = _ticks(known, world.later(), meters)
        with Cost(pids) as cost:
            folded = await fold_all(world.books, ticks)
        assert not folded.refused, len(folded.refused)
        if turn > 1:  # the first one warms up, and connects
            walls.append(cost.wall_s * 1e3)
            events += len(ticks) * len(meters)
            spent += cost.cpu_s
    copied, copying = 0, 0.0
    rows = [(lease, 1, meter, n) for n, (lease, _) in enumerate(known) for meter in meters]
    for turn in range(rounds + 1):
        await world.owner.execute("TRUNCATE bench_copy")
        with Cost(pids) as cost:
            await world.owner.copy_records_to_table("bench_copy", records=rows)
        if turn:
            copied += len(rows)
            copying += cost.cpu_s
    return known, walls, events / spent, copied / copying


async def holding(world, calls, size):
    """Holds a second, and the call's p99 in ms: ``size`` orders of many tenants a call."""
    terms, spans = Terms(), []
    began = None
    for call in range(calls + 3):
        if call == 3:  # the first ones warm up
            began = time.perf_counter()
        asks = [
            Ask(
                f"h{call}-{n}",
                job=f"projects/p/jobs/h{call}-{n}",
                tenant=f"tenants/{(call * size + n) % _TENANTS}",
                project="projects/p",
                node=f"n{n}",
                chip="H",
                quantity_milli=1,
                tier="ON_DEMAND",
                notice_ms=30_000,
            )
            for n in range(size)
        ]
        start = time.perf_counter()
        told = await authorize(world.books, asks, terms, each_alone=True)
        spans.append((time.perf_counter() - start) * 1e3)
        assert all(it.ok for it in told)
    spans = sorted(spans[3:])
    return calls * size / (time.perf_counter() - began), figures.percentile(spans, 0.99)


def _by_node(known):
    nodes = {}
    for lease, who in known:
        nodes.setdefault(who.node, []).append(lease)
    return nodes


def _reports(leases, ran_ns):
    return [
        Report(it, "s", Phase.STARTING, counters={(1, m): ran_ns for m in CATALOGUE[:_SENT]})
        for it in leases
    ]


async def seeing(world, known, rounds):
    """p99 of ms from a node's Settle, all nodes at once, until its tenant's balance has it; and
    the share of a core that all nodes take which report every 10 s, each at its own time."""
    gather_ms = Settings("", "").gather_ms
    settler = Settler(world.books, Terms(), meter_report.holds, SystemClock(), gather_ms)
    now_ms = await world.owner.fetchval("SELECT floor(extract(epoch FROM now()) * 1000)::int8")
    settler._note(now_ms)
    for lease, who in known:
        settler._remember(lease, who)
    nodes, spans = _by_node(known), []

    async def settle(node, leases, ran_ns):
        start = time.perf_counter()
        answers = await settler.settle(node, _reports(leases, ran_ns))
        assert all(not it.reason for it in answers)
        spans.append((time.perf_counter() - start) * 1e3)

    for _ in range(rounds):
        before = (await balance(world.books, "tenants/1")).posted_nano
        ran_ns = world.later()
        await asyncio.gather(*(settle(node, mine, ran_ns) for node, mine in nodes.items()))
        assert (await balance(world.books, "tenants/1")).posted_nano < before  # committed = seen
    visible = figures.percentile(sorted(spans), 0.99)
    ran_ns, tasks = world.later(), []
    with Cost(await _pids(world)) as cost:
        for node, mine in list(nodes.items())[: len(nodes) // 3]:
            tasks.append(asyncio.create_task(settle(node, mine, ran_ns)))
            await elapsed(_EVERY_S / len(nodes))
        await asyncio.gather(*tasks)
    await settler.close()
    return visible, cost.cpu_s / cost.wall_s


async def renewing(world, known, calls, callers):
    """Leases renewed a second, a call's p99 ms, and CPU us a lease: each node asks for its own."""
    nodes = list(_by_node(known).items())[:calls]
    await world.owner.execute(
        "UPDATE lease SET ends_at_ms = floor(extract(epoch FROM now()) * 1000)::int8 + 60000"
        " WHERE node = ANY($1)",
        [node for node, _ in nodes],
    )
    settler = Settler(world.books, Terms(), meter_report.holds, SystemClock())
    spans, ran_ns, rest = [], world.later(), iter(nodes)

    async def ask():
        for node, leases in rest:
            start = time.perf_counter()
            answers = await settler.settle(node, _reports(leases, ran_ns))
            assert all(it.valid_for_ms > _HOUR_MS // 2 for it in answers)
            spans.append((time.perf_counter() - start) * 1e3)

    pids = await _pids(world)
    with Cost(pids) as cost:
        await asyncio.gather(*(ask() for _ in range(callers)))
    await settler.close()
    leases = len(nodes) * _PLACES
    p99 = figures.percentile(sorted(spans), 0.99)
    return {
        "renewals_per_s": leases / cost.wall_s,
        "renewal_p99_ms": p99,
        "renewal_cpu_us": cost.cpu_s * 1e6 / leases,
    }


async def _measure(options, dsn):
    world = World(dsn)
    await world.begin()
    rates, walls = {}, {}
    for size in (options.small, options.large):
        known, rounds = None, options.rounds if size == options.small else options.rounds // 3 + 1
        for count in _COUNTS:
            known, spans, *rates[size, count] = await folding(
                world, size, CATALOGUE[:count], rounds, known
            )
            walls[size, count] = statistics.median(spans)
            figures.note(f"fold of {size}, {count} meters: {walls[size, count]:.1f} ms")
        if size == options.small:
            visible, rhythm = await seeing(world, known, options.rounds)
            renewed = await renewing(world, known, options.calls, 4)
            burst = await renewing(world, known, options.calls, _BURST)
            figures.note(f"renewals, 4 calls at once: {renewed}; {_BURST} at once: {burst}")
            renewed |= {f"burst_{name}": it for name, it in burst.items()}
            renewed["rhythm_core_share"] = rhythm
    holds, hold_p99 = await holding(world, options.calls, options.size)
    await world.owner.execute("SELECT set_config('gridlease.tenant', '*', false)")
    assert await world.owner.fetchval("SELECT sum(account_sum(id)) FROM account") == 0
    assert not await world.owner.fetch("SELECT * FROM broken_links()")
    await world.end()
    return walls, visible, rates, holds, hold_p99, renewed


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench ledger", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000, help="leases of a tick (10000)")
    parser.add_argument("--large", type=int, default=100_000, help="leases of a tick (100000)")
    parser.add_argument("--rounds", type=int, default=9, help="ticks of each kind (9)")
    parser.add_argument("--calls", type=int, default=200, help="Authorize calls (200)")
    parser.add_argument("--size", type=int, default=32, help="orders in a call (32)")
    options = parser.parse_args(arguments)
    machine = figures.machine()
    folder = Path(tempfile.mkdtemp(prefix="gl-ledger-"))
    server = start_server(folder / "postgres", None)
    try:
        tester = TestServer(server)
        found = asyncio.run(_run(options, tester))
    finally:
        server.stop(timeout_s=10.0)
        shutil.rmtree(folder, ignore_errors=True)
    walls, visible, rates, holds, hold_p99, renewed = found
    shares = {key: mine / copy for key, (mine, copy) in rates.items()}
    rows = [
        [f"{count} a lease, {size:,} leases", *(f"{each:,.0f}" for each in rates[size, count]),
         shares[size, count], f"{walls[size, count]:.0f}"]
        for size, count in rates
    ]  # fmt: skip
    head = ["events (counter advances) a CPU second", "fold + post", "COPY", "share", "fold, ms"]
    figures.table(f"Ledger, {machine}", head, figures_rounded(rows))
    sent = (options.small, _SENT)
    figures.last_line(
        bench="ledger",
        results=figures.rounded(
            {
                "fold_10k_ms": walls[sent],
                "fold_100k_ms": walls[options.large, _SENT],
                "holds_per_s": holds,
                "hold_p99_ms": hold_p99,
                "visible_p99_ms": visible,
                "events_per_core_s": rates[sent][0],
                **{f"copy_share_{n}_meters": shares[options.small, n] for n in _COUNTS},
                "copy_share_100k": shares[options.large, _SENT],
                **renewed,
            }
        ),
        baseline=figures.rounded({"copy_events_per_core_s": rates[sent][1]}),
        ratio=figures.rounded({"copy_share_per_core": shares[sent]}),
    )
    return 0


def figures_rounded(rows):
    return [[f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row] for row in rows]


async def _run(options, tester):
    name = await tester.create()
    return await _measure(options, tester.dsn(name))


if __name__ == "__main__":
    raise SystemExit(main(None))
