"""What the tables themselves refuse, whoever writes: nothing of money is there twice."""

import asyncpg
import pytest
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.supplier_ports import NewContract
from gridlease_billing.suppliers import assign_node, create_contract, create_supplier

from tests.integration.billing.test_documents import bill
from tests.integration.billing.world import NODE, SECOND_NS, ask, report

# By the owner, whom no grant of a table holds back: only keys, checks and triggers do.
_REFUSED = {
    "a journal of a key that was used": "SELECT post('fx', 'k', '', 0, '{1,2}', '{1,-1}')",
    "a line billed twice":
        "INSERT INTO invoice_line SELECT invoice, 99, lease, segment, meter, line, source"
        " FROM invoice_line LIMIT 1",
    "a part released twice":
        "INSERT INTO holdback_release SELECT lease, segment, meter, class, line_ms, supplier,"
        " amount_nano + 1, journal + 1, recorded_ms + 1 FROM holdback_release",
    "a lease twice": "INSERT INTO lease SELECT * FROM lease WHERE id = 'a'",
    "a lease of other terms": "UPDATE lease SET contract = contract + 1",
    "a lease whose charge shrinks": "UPDATE lease SET charged_nano = charged_nano - 1",
    "a lease that begins again": "UPDATE lease SET state = 'OPEN', invoice = NULL",
    "a lease on another invoice": "UPDATE lease SET invoice = NULL",
    "a counter below nothing": "UPDATE meter SET run = -1",
    "a hold below nothing": "UPDATE balance SET held = -1",
    "provisioning that costs":
        "INSERT INTO tariff (meter, above, price_nano, per, effective_ms, recorded_ms, request_id)"
        " VALUES ('provision', '{0}', '{1}', 1, 1, 1, 'r')",
    "more of a pot than it holds":
        "INSERT INTO commitment_hour VALUES ('commitments/c', 0, 't', 5, 6, 0, 0, 0)",
    "more than a partner's all":
        "INSERT INTO supplier_contract (supplier, version, share_permyriad, holdback_permyriad,"
        " holdback_days, payable, holdback, recorded_ms, request_id)"
        " SELECT id, 9, 10001, 0, 0, payable, holdback, 0, 'r' FROM supplier",
    "more paid than was asked for": "UPDATE receivable SET paid_nano = asked_nano + 1",
    "a negative invoice":
        "INSERT INTO invoice (id, number, tenant, project, request_id, issued_ms, total_nano,"
        " payable_nano, content_sha256) VALUES ('i', 'n', 't', 'p', 'r', 0, -1, -1, '')",
}  # fmt: skip
_BEFORE = """
SELECT set_config('gridlease.tenant', '*', false);
SELECT post('fx', 'k', '', 0, '{1,2}', '{1,-1}');
INSERT INTO holdback_release SELECT lease, segment, meter, class, recorded_ms, 'suppliers/acme', 1,
    1, 0 FROM line;
INSERT INTO commitment (id, tenant, project, chip, quantity_milli, starts_ms, ends_ms,
    rate_nano_per_hour, price_version, recorded_ms, request_id)
VALUES ('commitments/c', 't', 'p', 'x', 1, 0, 3600000, 1, 1, 0, 'r');
"""


async def test_what_would_be_there_twice_or_backwards_is_refused(world, dsn):
    await create_supplier(world.books, "suppliers/acme", "Acme")
    await create_contract(world.books, NewContract("suppliers/acme", 7_000, 1_000, 30, "c1"))
    await assign_node(world.books, NODE, "suppliers/acme", "n1")
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS, phase=Phase.CLEAN, final=True))
    await bill(world)
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    try:
        await owner.execute(_BEFORE)
        for name, statement in _REFUSED.items():
            try:
                await owner.execute(statement)
            except asyncpg.IntegrityConstraintViolationError:
                continue
            pytest.fail(f"{name} was taken")
    finally:
        await owner.close()


async def test_whose_rows_they_are_is_asked_of_each_table(world, service_pool):
    """Of what a tenant has: another that looks finds nothing in any table."""
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS, phase=Phase.CLEAN, final=True))
    await bill(world)
    await world.pool.execute(
        "INSERT INTO alarm (recorded_ms, kind, tenant) VALUES (0, 'X', 'tenants/demo')"
    )
    tables = await world.pool.fetch("""
        SELECT DISTINCT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition AND has_table_privilege(c.oid, 'SELECT')
            AND a.attname IN ('tenant', 'lease', 'account', 'invoice')""")
    filled = 0
    for tenant, sees in (("*", True), ("tenants/other", False), ("", False)):
        async with service_pool.acquire() as db, db.transaction():
            await db.execute("SELECT set_config('gridlease.tenant', $1, true)", tenant)
            for name in (it["name"] for it in tables):
                count = await db.fetchval(f"SELECT count(*) FROM {name}")
                filled += sees and count > 0
                assert sees or not count, f"{tenant or 'nobody'} sees rows of {name}"
    assert filled >= 10, "there is little to be seen"
