"""Billing's transactions on PostgreSQL, and the watch over its clock."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Conflict
from gridlease_store.pool import Connection, Pool, retrying

from gridlease_billing.adapters.commitment_store import PostgresCommitments
from gridlease_billing.adapters.cost_store import PostgresCosts
from gridlease_billing.adapters.evidence_store import PostgresEvidence
from gridlease_billing.adapters.footprint_store import PostgresFootprints
from gridlease_billing.adapters.invoice_store import PostgresInvoices
from gridlease_billing.adapters.lease_store import PostgresLeases
from gridlease_billing.adapters.ledger_store import PostgresLedger
from gridlease_billing.adapters.line_store import PostgresLines
from gridlease_billing.adapters.price_store import PostgresPrices
from gridlease_billing.adapters.receivable_store import PostgresReceivables
from gridlease_billing.adapters.sla_store import PostgresSla
from gridlease_billing.adapters.supplier_store import PostgresSuppliers
from gridlease_billing.adapters.tariff_store import PostgresTariffs
from gridlease_billing.adapters.tax_store import PostgresTaxes
from gridlease_billing.domain.clock_jump import Reading, Watch
from gridlease_billing.ports import EVERY, Now, Work

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
# Whose rows the transaction sees: a matter of the database from here on.
_SEE = "SELECT set_config('gridlease.tenant', $1, true)"
_NOW = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8"


class ClockWatch:
    """Remembers the last reading of the database's clock, and whether it jumped since."""

    def __init__(self, clock: Clock, longest_ms: int) -> None:
        self._clock = clock
        self._longest_ms = longest_ms
        self._watch = Watch()

    async def read(self, connection: Connection) -> Now:
        """The database's clock, now."""
        asked_ns = self._clock.boottime_ns()
        ms = await connection.fetchval(_NOW)
        reading = Reading(ms, asked_ns, self._clock.boottime_ns())
        before, self._watch = self._watch, self._watch.seen(reading, self._longest_ms)
        if self._watch.suspect_until_ns != before.suspect_until_ns:
            _LOG.error("the database's clock has jumped", extra={"longest_ms": self._longest_ms})
        return Now(ms, self._watch.suspect(reading.heard_ns))


@dataclass(frozen=True, slots=True)
class PostgresWork:
    """One transaction's stores."""

    connection: Connection
    watch: ClockWatch
    leases: PostgresLeases
    ledger: PostgresLedger
    prices: PostgresPrices
    invoices: PostgresInvoices
    evidence: PostgresEvidence
    suppliers: PostgresSuppliers
    receivables: PostgresReceivables
    commitments: PostgresCommitments
    tariffs: PostgresTariffs
    lines: PostgresLines
    taxes: PostgresTaxes
    sla: PostgresSla
    footprints: PostgresFootprints
    costs: PostgresCosts

    async def now(self) -> Now:
        return await self.watch.read(self.connection)


class PostgresBooks:
    """Runs work in a transaction, again if another was first."""

    def __init__(self, pool: Pool, clock: Clock, longest_ms: int) -> None:
        self._pool = pool
        self._watch = ClockWatch(clock, longest_ms)

    async def run(self, work: Callable[[Work], Awaitable[T]], *, tenant: str = EVERY) -> T:
        async def once(connection: Connection) -> T:
            await connection.execute(_SEE, tenant)
            try:
                return await work(self._work(connection))
            except asyncpg.UniqueViolationError as error:
                # Every key here is an idempotency key: who comes second reads what is there.
                raise Conflict(
                    f"Another call was first: {error}",
                    reason="DATABASE_CONFLICT",
                    remedy="Read again and retry.",
                ) from error

        # Row locks in one order and a CHECK do what serializable would, without its retries.
        return await retrying(self._pool, once, isolation="read_committed")

    def _work(self, connection: Connection) -> PostgresWork:
        return PostgresWork(
            connection,
            self._watch,
            PostgresLeases(connection),
            PostgresLedger(connection),
            PostgresPrices(connection),
            PostgresInvoices(connection),
            PostgresEvidence(connection),
            PostgresSuppliers(connection),
            PostgresReceivables(connection),
            PostgresCommitments(connection),
            PostgresTariffs(connection),
            PostgresLines(connection),
            PostgresTaxes(connection),
            PostgresSla(connection),
            PostgresFootprints(connection),
            PostgresCosts(connection),
        )
