"""The database keeps the books even from a service that would not."""

import asyncio

import asyncpg
import pytest
from gridlease_billing.authorize import authorize
from gridlease_billing.credit import pay_in
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.ports import Credit
from gridlease_billing.prices import create_price, list_prices, load_defaults
from gridlease_kernel.faults import Conflict, Exhausted, Invalid, Unreachable
from gridlease_store.pool import transaction
from gridlease_testkit.waiting import eventually

from tests.integration.billing.world import (
    CHIP,
    NODE,
    PRICE,
    SECOND_NS,
    TENANT,
    USD,
    ask,
    report,
    together,
)


async def _post(db, *amounts, key=None):
    accounts = [it["id"] for it in await db.fetch("SELECT id FROM account ORDER BY id")]
    await db.execute(
        "SELECT post('correction', $3, '', 0, $1, $2)", accounts[: len(amounts)], amounts, key
    )


@pytest.mark.parametrize("amounts", [(1,), (5, -4), (5, -3, -1)])
async def test_an_unbalanced_journal_is_refused(world, amounts):
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):
        async with transaction(world.pool) as db:
            await _post(db, *amounts)


async def test_a_balanced_journal_passes(world):
    async with transaction(world.pool) as db:
        await _post(db, 5, -3, -2)


async def test_a_journal_is_balanced_in_each_currency(world):
    euro = await world.pool.fetchval(
        "SELECT id FROM account WHERE kind = 'fx' AND currency = 'EUR'"
    )
    dollar = await world.pool.fetchval(
        "SELECT id FROM account WHERE kind = 'fx' AND currency = 'USD'"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):
        await world.pool.execute("SELECT post('fx', NULL, '', 0, $1, $2)", [euro, dollar], [5, -5])


async def test_an_account_that_is_none_is_refused(world):
    with pytest.raises(asyncpg.CheckViolationError):
        await world.pool.execute("SELECT post('fx', NULL, '', 0, '{9998,9999}', '{5,-5}')")


_COLUMNS = {
    "journal": "cause",
    "entry": "amount",
    "price": "chip",
    "invoice": "project",
    "invoice_line": "meter",
}


@pytest.mark.parametrize("verb", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0}"])
async def test_what_is_written_stays(world, dsn, verb):
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    try:
        for table, column in _COLUMNS.items():
            statement = verb.format(table, column)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await world.pool.execute(statement)
            if (table, verb.split()[0]) == ("invoice", "UPDATE"):
                continue  # a draft may become final: row by row, in test_invoice
            # The owner may, but for the trigger (or, of a table, a foreign key).
            with pytest.raises((asyncpg.RestrictViolationError, asyncpg.FeatureNotSupportedError)):
                await owner.execute(statement)
    finally:
        await owner.close()


async def test_a_tenant_cannot_be_overdrawn(world):
    for change in ("held = posted + 1", "held = -1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await world.pool.execute(f"UPDATE balance SET {change}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.pool.execute("UPDATE balance SET posted = posted + 1")
    wallet = await world.balance()
    revenue = await world.pool.fetchval(
        "SELECT id FROM account WHERE kind = 'revenue' AND currency = 'USD'"
    )
    more = wallet.available_nano + 1
    with pytest.raises(asyncpg.CheckViolationError, match="no_overspend"):
        await world.pool.execute(
            "SELECT post('charge', NULL, '', 0, $1, $2)", [wallet.account, revenue], [-more, more]
        )


@pytest.mark.parametrize(
    "change",
    [
        "state = 'HELD'",
        "charged_nano = charged_nano - 1",
        "spool_id = 'other'",
        "ends_at_ms = 2^60",
    ],
)
async def test_a_lease_moves_forward_only(world, change):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS))
    await world.close("a")
    with pytest.raises(asyncpg.CheckViolationError, match="backwards"):
        await world.pool.execute(f"UPDATE lease SET {change} WHERE id = 'a'")


async def test_credit_is_paid_once_for_each_request(world):
    credit = Credit(TENANT, 5 * USD, "r", "x")
    paid = await together(*(pay_in(world.books, credit) for _ in range(16)))
    assert {it.posted_nano for it in paid} == {105 * USD}
    with pytest.raises(Invalid) as caught:
        await pay_in(world.books, Credit(TENANT, 6 * USD, "r", "x"))
    assert (caught.value.reason, caught.value.field) == ("REQUEST_ID_REUSED", "request_id")
    with pytest.raises(Exhausted) as caught:
        await pay_in(world.books, Credit(TENANT, 2**63 - 1, "r2", "x"))
    assert caught.value.reason == "BALANCE_TOO_LARGE"


async def test_prices_are_insert_only_and_in_force_by_time(world):
    later = await world.price(2 * PRICE, "later", effective_ms=2**50)
    now = await world.price(3 * PRICE, "now")
    assert [it.version for it in await list_prices(world.books, history=False)] == [now.version]
    assert later in await list_prices(world.books, history=True)
    assert await world.price(3 * PRICE, "now") == now
    for bad, reason in (("now", "REQUEST_ID_REUSED"), ("past", "PRICE_IN_THE_PAST")):
        with pytest.raises(Invalid) as caught:
            await world.price(PRICE, bad, effective_ms=1)
        assert caught.value.reason == reason


async def test_defaults_are_loaded_once_and_never_over_an_operators_price(world):
    from gridlease_billing.domain.price import defaults

    table = defaults({CHIP: "1.00", "cpu-x86-64": "0.05"})
    done = await together(*(load_defaults(world.books, table) for _ in range(4)))
    assert sorted(done) == [0, 0, 0, 5]
    in_force = {(it.chip, it.tier): it for it in await list_prices(world.books, history=False)}
    assert in_force[CHIP, "ON_DEMAND"].price_nano_per_hour == PRICE
    assert in_force["cpu-x86-64", "SPOT"].price_nano_per_hour == 20_000_000


async def test_sixteen_writers_on_one_tenant_never_overspend(world):
    await world.price(PRICE, "x", chip="A100-80GB")
    asks = [
        ask(f"l{n:03d}", quantity_milli=3_000, job=f"projects/demo/jobs/{n}") for n in range(96)
    ]
    told = await together(*(world.authorize(it) for it in asks))  # 2.10 USD each
    oks = [it[0].ok for it in told]
    assert sum(oks) == 47  # of 100 USD
    wallet = await world.balance()
    assert wallet.held_nano == 47 * 2_100_000_000
    assert {it[0].reason for it in told if not it[0].ok} == {"CREDIT_TOO_LOW"}


async def test_sixteen_nodes_settle_at_once_without_deadlock_or_drift(world):
    leases = [f"l{n:02d}" for n in range(32)]
    for lease in leases:
        await world.authorize(ask(lease, node=f"n{hash(lease) % 4}"))
    by_node = {}
    for lease in leases:
        by_node.setdefault(f"n{hash(lease) % 4}", []).append(lease)
    for seconds in (0, 1, 2, 3):
        calls = [
            world.settle(*(report(it, seconds * SECOND_NS) for it in part), node=node)
            for node, mine in by_node.items()
            for part in (mine, mine[::-1], mine[::2], mine[1::2])
            if part
        ]
        if seconds:  # one that is closed before its first grant never runs, and is owed nothing
            calls += [world.close(lease) for lease in leases[::5]]
        failed = [it for it in await together(*calls) if isinstance(it, BaseException)]
        assert failed == []
    assert (await world.balance()).posted_nano == 100 * USD - 32 * 3 * USD // 100


async def test_one_lease_authorised_by_sixteen_at_once_is_held_once(world):
    told = await together(*(world.authorize(ask("a")) for _ in range(16)))
    assert all(it[0].ok for it in told)
    assert (await world.balance()).held_nano == 7 * USD // 10


async def test_authorize_and_close_at_once_leave_no_hold(world):
    for n in range(8):
        await together(world.authorize(ask(f"l{n}")), world.close(f"l{n}"))
        await world.close(f"l{n}")
        assert (await world.row(f"l{n}"))["state"] == "FINAL"
    assert (await world.balance()).held_nano == 0


_WAITING = """
SELECT pid FROM pg_stat_activity
WHERE application_name = 'gridlease-billing' AND wait_event_type = 'Lock'
    AND datname = current_database()
"""


@pytest.mark.parametrize(
    "step", ["lease", "segment", "meter", "journal", "chain", "entry", "balance"]
)
async def test_a_backend_killed_at_any_step_loses_and_doubles_nothing(world, dsn, step):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.price(2 * PRICE, "dearer")
    await world.pass_time("a", 30_000)
    one = report("a", 20 * SECOND_NS)
    killer = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    try:
        async with killer.transaction():
            await killer.execute(f"LOCK TABLE {step} IN SHARE MODE")  # writers wait here
            settling = asyncio.create_task(world.settle(one))
            pid = await eventually(lambda: killer.fetchval(_WAITING), what=f"waits at {step}")
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises((Unreachable, Conflict)):
                await settling
        assert (await world.balance()).posted_nano == 100 * USD
        assert (await world.row("a"))["charged_nano"] == 0
        (answer,) = await world.settle(one)
        assert (answer.segment, answer.last) == (2, False)
        assert (await world.balance()).posted_nano == 100 * USD - 20 * USD // 100
    finally:
        await killer.close()


async def test_a_transaction_cut_before_its_commit_leaves_nothing(world):
    class Cut(Exception):  # noqa: N818 - not an error here
        pass

    class CutBooks:
        """Runs everything, then fails in the commit's place."""

        async def run(self, work):
            async def cut(tx):
                await work(tx)
                raise Cut

            return await world.books.run(cut)

    with pytest.raises(Cut):
        await authorize(CutBooks(), [ask("a")], world.terms)
    assert await world.row("a") is None
    assert (await world.balance()).held_nano == 0
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    from gridlease_billing.settle import settle

    with pytest.raises(Cut):
        await settle(CutBooks(), NODE, [report("a", 5 * SECOND_NS)], world.terms)
    assert (await world.balance()).posted_nano == 100 * USD
    assert await world.pool.fetchval("SELECT count(*) FROM counter") == 0
    with pytest.raises(Cut):
        await create_price(CutBooks(), _price())
    assert len(await list_prices(world.books, history=True)) == 1


def _price():
    from gridlease_billing.domain.price import NewPrice

    return NewPrice("x", "SPOT", 1, None, "cut")
