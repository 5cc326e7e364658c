"""Documents on a second machine: restored into a fresh server, made again from the books alone."""

import asyncio
import subprocess

import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.domain.invoice import as_json
from gridlease_billing.domain.invoice_rows import as_csv, as_focus
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.invoice import get_invoice, replayed
from gridlease_kernel.clock import SystemClock
from gridlease_store.binaries import find_bin_dir
from gridlease_store.pool import connect_pool
from gridlease_testkit.postgres import TestServer, start_server

from tests.integration.billing.test_documents import bill, german, ran, refund, silent
from tests.integration.billing.world import SECOND_NS, TENANT, report


def printed(invoice):
    pdf = PdfPrinter()
    texts = [as_text(invoice, language) for language in ("en", "zh", "")]
    files = [as_json(invoice), as_csv(invoice), as_focus(invoice)]
    return [*texts, *files, pdf.print(invoice, "en"), pdf.print(invoice, "zh")]


@pytest.fixture
def second(state_folder):
    server = start_server(state_folder / "pg")
    yield TestServer(server)
    server.stop(timeout_s=5.0)


async def test_every_document_is_the_same_bytes_on_a_second_machine(world, dsn, second):
    await german(world)
    await ran(world, "a", 12_345_678_901, quantity_milli=333)
    await silent(world, "b", 7 * SECOND_NS)
    first = await bill(world, "1")
    await world.settle(report("b", 9 * SECOND_NS))
    await ran(world, "c", 59 * SECOND_NS)
    later = await bill(world, "2")
    notes = [await refund(world, later, position=1 + n) for n in (1,) if later.billed[n]]
    before = {it.head.name: printed(it) for it in (first, later, *notes)}
    name = await second.create()
    await asyncio.to_thread(_copy, dsn, second.dsn(name))
    pool = await connect_pool(second.dsn(name), schema="billing", role="postgres", max_size=2)
    try:
        books = PostgresBooks(pool, SystemClock(), 600_000)
        for document, files in before.items():
            assert printed(await get_invoice(books, TENANT, document)) == files
        for document in (first, later):
            assert (
                printed(await replayed(books, TENANT, document.head.name))
                == (before[document.head.name])
            )
    finally:
        pool.terminate()


def _copy(source, target):
    tools = find_bin_dir()
    dumped = subprocess.run(
        [tools / "pg_dump", "--no-owner", "--no-privileges", source],
        capture_output=True,
        check=True,
        timeout=60,
    )
    subprocess.run(
        [tools / "psql", "-q", "-v", "ON_ERROR_STOP=1", target],
        input=dumped.stdout,
        capture_output=True,
        check=True,
        timeout=60,
    )
