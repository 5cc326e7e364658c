"""Builds billing from its parts and runs it: the one place that knows every class."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import logging
import os
import tomllib
from collections.abc import AsyncIterator

from gridlease.billing.v1 import (
    account_pb2_grpc,
    contract_pb2_grpc,
    lease_pb2_grpc,
    receivable_pb2_grpc,
    report_pb2_grpc,
    supplier_pb2_grpc,
)
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Fault
from gridlease_kernel.ids import RandomIds
from gridlease_mesh import meter_report, observe
from gridlease_mesh.bus import Bus
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.lifetime import ended, patiently, ready
from gridlease_mesh.server import MeshServer
from gridlease_mesh.validation import ValidateRequests
from gridlease_store.migrate import migrate
from gridlease_store.pool import Pool, connect_pool

from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.domain import price
from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.expire import BATCH, expire
from gridlease_billing.prices import load_defaults
from gridlease_billing.reopen import reopen
from gridlease_billing.report_ports import ReportBook
from gridlease_billing.rpc.accounts import Accounts
from gridlease_billing.rpc.contracts import Contracts
from gridlease_billing.rpc.leases import Leases, Settlements
from gridlease_billing.rpc.partners import Suppliers
from gridlease_billing.rpc.receivables import Receivables
from gridlease_billing.rpc.reports import Reports
from gridlease_billing.settings import Settings
from gridlease_billing.ticks import Settler
from gridlease_billing.upkeep import Upkeep

_LOG = logging.getLogger(__name__)
ROOM = "billing"
ROLE = "gl_billing"
_SETTLEMENT = "gridlease.billing.v1.SettlementService"
_STOP_S = 3.0


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[PostgresBooks]:
    """Billing, serving on the mesh for as long as the block runs."""
    async with contextlib.AsyncExitStack() as stack:
        observer = observe.set_up(ROOM, os.environ)
        stack.callback(observer.close)
        pool = await _database(settings)
        stack.callback(pool.terminate)
        books = PostgresBooks(pool, SystemClock(), settings.longest_ms)
        if settings.billing_default_prices:
            count = await patiently("the price book", lambda: load_defaults(books, read_defaults()))
            _LOG.info("default prices loaded", extra={"count": count})
        bus = await Bus.connect(
            settings.nats_url,
            creds=settings.nats_creds,
            name=ROOM,
            prefix=settings.subject_prefix,
            timeout_s=None,
        )
        stack.push_async_callback(bus.close)
        book = PostgresReportBook(pool)
        await patiently(
            "restored books",
            lambda: reopen(books, book, settings.terms(), settings.reopens_after_ms),
        )
        settler = Settler(
            books, settings.terms(), meter_report.holds, SystemClock(), settings.gather_ms
        )
        stack.push_async_callback(settler.close)
        server = _server(bus, books, book, settings, observer, settler)
        await server.start()
        stack.push_async_callback(server.stop, _STOP_S)
        ticking = asyncio.create_task(_tick(books, settings.terms(), settings.slow_tick_ms / 1e3))
        stack.push_async_callback(ended, ticking)
        upkeep = Upkeep(books, book, settings.budgets_every_ms / 1e3, observer.levels)
        keeping = asyncio.create_task(upkeep.run())
        stack.push_async_callback(ended, keeping)
        stack.enter_context(ready(settings.ready_file))
        _LOG.info("billing serves")
        yield books
        _LOG.info("billing stops")


def _server(
    bus: Bus,
    books: PostgresBooks,
    book: ReportBook,
    settings: Settings,
    observer: observe.Observer,
    settler: Settler,
) -> MeshServer:
    terms = settings.terms()
    server = bus.server(
        queue=ROOM,
        up=[_SETTLEMENT],
        interceptors=[*observer.server(), FaultsToStatus(), ValidateRequests()],
    )
    lease_pb2_grpc.add_LeaseServiceServicer_to_server(
        Leases(books, terms, settings.spot(), book), server
    )
    lease_pb2_grpc.add_SettlementServiceServicer_to_server(Settlements(settler), server)
    account_pb2_grpc.add_AccountServiceServicer_to_server(
        Accounts(books, RandomIds(), PdfPrinter(), terms, settings.notice_ms), server
    )
    receivable_pb2_grpc.add_ReceivableServiceServicer_to_server(Receivables(books), server)
    supplier_pb2_grpc.add_SupplierServiceServicer_to_server(Suppliers(books), server)
    contract_pb2_grpc.add_ContractServiceServicer_to_server(Contracts(books, RandomIds()), server)
    report_pb2_grpc.add_ReportServiceServicer_to_server(Reports(books, book), server)
    return server


async def _database(settings: Settings) -> Pool:
    """A pool on a schema that is up to date; waits for a database that starts."""

    async def once() -> Pool:
        applied = await migrate(
            settings.owner_dsn, ROOM, "gridlease_billing", role=ROLE, login=True
        )
        _LOG.info("schema is up to date", extra={"applied": applied})
        return await connect_pool(
            settings.postgres_dsn,
            schema=ROOM,
            role=ROLE,
            max_size=settings.billing_connections,
        )

    return await patiently("the database", once)


async def _tick(books: PostgresBooks, terms: Terms, pause_s: float) -> None:
    """Ends what time has ended, in bounded batches; survives the database's absence."""
    while True:
        try:
            while (moved := await expire(books, terms)) > 0:
                _LOG.info("leases moved on by time", extra={"count": moved})
                if moved < BATCH:
                    break
        except Fault as fault:
            _LOG.warning("the tick failed: %s", fault)
        except Exception:  # noqa: BLE001 - the next tick may do better
            # A bug in one lease must not stop the holds of all others from ending.
            _LOG.exception("the tick failed")
        await asyncio.sleep(pause_s)


def read_defaults() -> list[price.NewPrice]:
    file = importlib.resources.files("gridlease_billing") / "prices" / "default.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    assert table["currency"] == price.CURRENCY, table["currency"]
    return price.defaults(table["on_demand"])
