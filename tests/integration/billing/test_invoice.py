"""Invoices: what is final, once, under a gapless number, the same bytes each time."""

import asyncio
import hashlib
import json
import pickle
import re
import subprocess
import sys

import pytest
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.domain.invoice import as_json, canonical
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.invoice import create_invoice, get_invoice, list_invoices
from gridlease_billing.ports import Scope
from gridlease_kernel.faults import Invalid, Missing, Precondition
from gridlease_kernel.ids import RandomIds
from pypdf import PdfReader

from tests.integration.billing.world import PROJECT, SECOND_NS, TENANT, ask, report, together

SCOPE = Scope(TENANT, PROJECT)


async def _ran(world, lease, ran_ns, **more):
    await world.authorize(ask(lease, **more))
    await world.settle(report(lease, phase=Phase.KNOWN))
    await world.settle(report(lease, ran_ns, phase=Phase.CLEAN, final=True))


async def _bill(world, request_id="r", scope=SCOPE):
    return await create_invoice(world.books, RandomIds(), scope, request_id)


async def test_an_invoice_is_usage_times_price(world):
    await _ran(world, "a", 1_234_567_891)
    await _ran(world, "b", 7 * SECOND_NS, quantity_milli=333)
    invoice = await _bill(world)
    assert [line.lease for line in invoice.lines] == ["a", "b"]
    assert invoice.total_nano == 12_345_678 + 11_988_000_000 * 7 // 3_600
    assert invoice.total_nano == sum(line.amount_nano for line in invoice.lines)
    assert invoice.payable_nano == 40_000_000
    assert invoice.total_nano == 100_000_000_000 - (await world.balance()).posted_nano
    assert {name for _, _, name in await world.usage()} == {invoice.head.name}


async def test_what_is_billed_is_not_billed_again(world):
    await _ran(world, "a", SECOND_NS)
    first = await _bill(world)
    assert await _bill(world) == first
    with pytest.raises(Precondition) as caught:
        await _bill(world, "other")
    assert caught.value.reason == "NOTHING_TO_BILL"
    assert "list the invoices" in caught.value.remedy
    with pytest.raises(Invalid) as caught:
        await _bill(world, "r", Scope(TENANT, "projects/other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_what_is_not_final_waits(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS))
    with pytest.raises(Precondition) as caught:
        await _bill(world)
    assert "1 of its leases are not final yet" in caught.value.remedy
    await _ran(world, "b", SECOND_NS)
    assert [line.lease for line in (await _bill(world)).lines] == ["b"]


async def test_a_job_may_be_billed_alone(world):
    await _ran(world, "a", SECOND_NS, job=f"{PROJECT}/jobs/1")
    await _ran(world, "b", SECOND_NS, job=f"{PROJECT}/jobs/2")
    one = await _bill(world, scope=Scope(TENANT, PROJECT, f"{PROJECT}/jobs/2"))
    assert [line.lease for line in one.lines] == ["b"]
    assert [line.lease for line in (await _bill(world, "rest")).lines] == ["a"]


async def test_numbers_have_no_gap_though_many_bill_at_once_and_some_fail(world):
    for n in range(12):
        await _ran(world, f"l{n:02d}", SECOND_NS, job=f"{PROJECT}/jobs/{n}")
    scopes = [Scope(TENANT, PROJECT, f"{PROJECT}/jobs/{n}") for n in range(16)]  # 4 have nothing
    made = await together(*(_bill(world, f"r{n % 16}", scopes[n % 16]) for n in range(32)))
    numbers = {it.head.number for it in made if not isinstance(it, Exception)}
    assert len(numbers) == 12
    assert sorted(int(it.rsplit("-", 1)[1]) for it in numbers) == list(range(1, 13))
    assert {type(it) for it in made if isinstance(it, Exception)} == {Precondition}
    listed = await list_invoices(world.books, SCOPE)
    assert [it.head.number for it in listed] == sorted(numbers, reverse=True)
    assert all(it.lines == () for it in listed)


async def test_a_project_billed_by_many_at_once_is_billed_once(world):
    for n in range(8):
        await _ran(world, f"l{n}", SECOND_NS)
    made = await together(*(_bill(world, f"r{n}") for n in range(8)))
    assert sum(len(it.lines) for it in made if not isinstance(it, Exception)) == 8


async def test_another_tenants_invoice_answers_as_a_missing_one(world):
    await _ran(world, "a", SECOND_NS)
    invoice = await _bill(world)
    assert await get_invoice(world.books, TENANT, invoice.head.name) == invoice
    for tenant, name in (("tenants/other", invoice.head.name), (TENANT, "invoices/none")):
        with pytest.raises(Missing) as caught:
            await get_invoice(world.books, tenant, name)
        assert caught.value.reason == "INVOICE_NOT_FOUND"


async def test_text_and_json_say_the_same(world):
    await _ran(world, "a", 1_500_000_000)
    invoice = await _bill(world)
    text = as_text(invoice).decode()
    assert invoice.head.number in text
    assert re.search(
        r"^ +1 +Run time +a/1 +1 x H100-80GB on-demand +36 +1\.5 s +0\.015 +0\.02$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"Payable: +0\.02 USD", text)
    told = json.loads(as_json(invoice))
    assert told["total_nano"] == 15_000_000
    digest = told.pop("content_sha256")
    again = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    assert again == canonical(invoice)
    assert hashlib.sha256(again).hexdigest() == digest == invoice.content_sha256


_PRINT = """
import pickle, sys
from gridlease_billing.adapters.pdf import PdfPrinter
sys.stdout.buffer.write(PdfPrinter().print(pickle.load(sys.stdin.buffer), sys.argv[1]))
"""


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_a_pdf_has_the_same_bytes_in_another_process(world, tmp_path, language):
    for n in range(60):
        await _ran(world, f"l{n:02d}", (n + 1) * 333_333_333)
    invoice = await _bill(world)
    here = PdfPrinter().print(invoice, language)
    there = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _PRINT, language],
        input=pickle.dumps(invoice),
        capture_output=True,
        check=True,
    )
    assert there.stdout == here
    (tmp_path / "invoice.pdf").write_bytes(here)
    pages = PdfReader(tmp_path / "invoice.pdf").pages
    text = "".join(page.extract_text() for page in pages)
    assert len(pages) > 1
    assert ("运行时间" in text) == (language == "zh")
    assert invoice.head.number in text
    assert invoice.content_sha256 in text.replace("\n", "")


async def test_an_invoice_that_was_tampered_with_is_not_shown(world, dsn):
    import asyncpg

    await _ran(world, "a", SECOND_NS)
    invoice = await _bill(world)
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute(
        "ALTER TABLE invoice DISABLE TRIGGER ALL; UPDATE invoice SET total_nano = 1;"
    )
    await owner.close()
    with pytest.raises(AssertionError, match="not what was issued"):
        await get_invoice(world.books, TENANT, invoice.head.name)


async def test_usage_is_read_in_pages(world):
    from gridlease_billing.usage import list_usage

    for n in range(7):
        await _ran(world, f"l{n}", SECOND_NS)
    seen, key = [], None
    while True:
        page = await list_usage(world.books, Scope(TENANT), key, 3)
        assert len(page.lines) <= 3
        seen += [line.lease for line, _, _ in page.lines]
        key = page.next_key
        if key is None:
            break
    assert seen == [f"l{n}" for n in reversed(range(7))]
