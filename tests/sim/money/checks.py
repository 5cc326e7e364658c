"""What the books on PostgreSQL must say, whatever happened: asked of the database itself."""

from __future__ import annotations

from tests.sim.money.broken import insist

# Each of these finds nothing, after every moment. What they add up, they add up again each time:
# a sum that is carried on would believe itself. $1: the last journal that was seen before; one
# that a killed call leaves behind may come late, so a few are looked at again.
_AGAIN = 500
_EACH = {
    "a journal does not sum to zero":
        "SELECT journal FROM entry WHERE journal > $1 GROUP BY journal HAVING sum(amount) <> 0",
    "a balance is below its limit":
        "SELECT account FROM balance WHERE posted - held < -credit_limit OR held < 0",
    "a balance is not the sum of its entries":
        "SELECT b.account FROM balance AS b LEFT JOIN ("
        " SELECT account, sum(amount) AS posted FROM entry GROUP BY account) AS e USING (account)"
        " WHERE b.posted <> coalesce(e.posted, 0)",
    "what is held is not what open holds are":
        "SELECT b.account FROM balance AS b JOIN account AS a ON a.id = b.account LEFT JOIN ("
        " SELECT tenant, sum(held_nano) AS held FROM lease WHERE state <> 'FINAL' GROUP BY tenant"
        ") AS l ON l.tenant = a.tenant LEFT JOIN ("
        " SELECT account, sum(rated_nano - base_nano) AS ahead FROM meter"
        " WHERE rated_nano <> base_nano GROUP BY account) AS m ON m.account = b.account"
        " WHERE b.held <> coalesce(l.held, 0) - coalesce(m.ahead, 0)",
    "the ledger does not sum to zero":
        "SELECT a.currency FROM entry AS e JOIN account AS a ON a.id = e.account"
        " GROUP BY a.currency HAVING sum(e.amount) <> 0",
}  # fmt: skip
# And these after what was killed, and every few thousand events.
_AHEAD = """
WITH ahead AS MATERIALIZED (
    SELECT lease, sum(rated_nano - base_nano) AS nano FROM meter WHERE rated_nano <> base_nano
    GROUP BY lease)
"""
_WHOLE = {
    "a journal does not sum to zero":
        "SELECT journal FROM entry GROUP BY journal HAVING sum(amount) <> 0",
    "a hold is negative":
        _AHEAD + "SELECT l.id FROM lease AS l LEFT JOIN ahead AS m ON m.lease = l.id"
        " WHERE l.held_nano < coalesce(m.nano, 0)",
    "a lease that is final holds":
        "SELECT id FROM lease WHERE state = 'FINAL' AND held_nano <> 0",
    "a job is over its budget":
        "SELECT job FROM lease WHERE budget_nano IS NOT NULL GROUP BY job"
        " HAVING sum(charged_nano + held_nano) > max(budget_nano)",
    "charges are not posted":
        _AHEAD + "SELECT c.tenant FROM (SELECT l.tenant, sum(l.charged_nano + coalesce(m.nano, 0))"
        " AS charged FROM lease AS l LEFT JOIN ahead AS m ON m.lease = l.id GROUP BY l.tenant) AS c"
        " LEFT JOIN (SELECT a.tenant, sum(e.amount) AS posted FROM entry AS e"
        " JOIN account AS a ON a.id = e.account JOIN journal AS j ON j.id = e.journal"
        " WHERE a.kind = 'tenant_prepaid' AND j.kind = 'charge' GROUP BY a.tenant) AS p"
        " ON p.tenant = c.tenant WHERE c.charged <> -coalesce(p.posted, 0)",
    "lines are not the charge":
        "SELECT l.id FROM lease AS l LEFT JOIN (SELECT lease, sum(amount_nano) AS told FROM line"
        " WHERE class = 'usage' AND meter = 'run' GROUP BY lease) AS t ON t.lease = l.id"
        " WHERE l.state = 'FINAL' AND l.charged_nano <> coalesce(t.told, 0)",
    "late usage is not posted":
        "SELECT 1 WHERE (SELECT coalesce(sum(amount_nano), 0) FROM line WHERE class ="
        " 'correction') <> -(SELECT coalesce(sum(e.amount), 0) FROM entry e JOIN account a"
        " ON a.id = e.account JOIN journal j ON j.id = e.journal WHERE a.kind = 'receivable'"
        " AND j.kind = 'correction')",
    "two lines of one segment":
        "SELECT lease FROM line WHERE class = 'usage' GROUP BY lease, segment, meter"
        " HAVING count(*) > 1",
}  # fmt: skip


def _together(queries, seen):
    """One statement, so one moment of the database, for all of them."""
    parts = (
        f"SELECT '{what}' AS what, found::text FROM ({query.replace('$1', str(seen))}) AS found"
        for what, query in queries.items()
    )
    return " UNION ALL ".join(f"(SELECT * FROM ({part} LIMIT 3) AS q)" for part in parts)


class Books:
    """The books of one world, from outside."""

    def __init__(self):
        self._seen = 0

    async def each(self, connection):
        """After every moment."""
        last = await connection.fetchval("SELECT last_value FROM journal_number")
        found = await connection.fetch(_together(_EACH, self._seen - _AGAIN))
        insist(not found, *(tuple(it) for it in found))
        self._seen = last

    async def whole(self, connection):
        """Everything that they must say."""
        found = await connection.fetch(_together(_WHOLE, 0))
        insist(not found, *(tuple(it) for it in found))
