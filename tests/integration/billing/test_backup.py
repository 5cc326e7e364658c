"""Backup and restore: the same books, byte for byte, in another database; and nothing less."""

import asyncio
import io
import stat
import tarfile

import asyncpg
import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import journal_summary, pay_in
from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.energy_use import Draw
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.domain.invoice import as_json
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.footprints import DrawKeeper
from gridlease_billing.invoice import create_invoice, get_invoice, replayed
from gridlease_billing.ports import Credit, Scope
from gridlease_billing.reopen import fence_restored
from gridlease_billing.reports import check_books
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Fault
from gridlease_kernel.ids import RandomIds
from gridlease_store import sealed
from gridlease_store.backup import backup, read_manifest, restore
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool

from tests.integration.billing.world import (
    CHIP,
    PROJECT,
    SECOND_NS,
    TENANT,
    TERMS,
    USD,
    ask,
    report,
)


@pytest.fixture
async def empty(postgres):
    """The address of an empty database."""
    name = await postgres.create()
    yield postgres.dsn(name)
    await postgres.drop(name)


def printed(invoice):
    return as_text(invoice), as_json(invoice), PdfPrinter().print(invoice)


async def some_books(world):
    """An invoice that is final, and a lease that runs."""
    await DrawKeeper(world.books).keep({CHIP: Draw(100_000, 700_000, "a data sheet")})
    power = SitePower(1_250, (400_000,))
    for lease in "ab":
        await world.authorize(ask(lease, site="sites/a", power=power))
        await world.settle(report(lease))
        await world.pass_time(lease, 20_000)
        await world.settle(report(lease, 10 * SECOND_NS))
    await world.close("a", cause=Cause.EXITED)
    await world.settle(report("a", 10 * SECOND_NS, phase=Phase.EXITED, final=True))
    return await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "r1")


async def test_restored_books_are_the_same_and_fenced(world, dsn, empty, tmp_path):
    issued = await some_books(world)
    before = printed(await get_invoice(world.books, TENANT, issued.head.name))
    file = tmp_path / "books.backup"
    written = await backup(dsn, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_manifest(file) == written
    await world.settle(report("b", 12 * SECOND_NS))  # after the backup: not in it
    await pay_in(world.books, Credit(TENANT, USD, "later", "test"))

    found = await restore(empty, file)
    assert found.head == written.head
    assert await migrate(empty, "billing", "gridlease_billing", login=True) == []
    pool = await connect_pool(empty, schema="billing", role=ROLE)
    try:
        books, book = PostgresBooks(pool, SystemClock(), 600_000), PostgresReportBook(pool)
        assert printed(await get_invoice(books, TENANT, issued.head.name)) == before
        assert printed(await replayed(books, TENANT, issued.head.name)) == before
        assert b"INFORMATION" in before[1], "what it told of energy is among it"
        checked = await check_books(books, book)
        assert checked.whole
        assert checked.head == written.head
        assert await fence_restored(books, book, TERMS) == 1
        async with pool.acquire() as db, db.transaction():
            await db.execute("SELECT set_config('gridlease.tenant', '*', true)")
            cause = await db.fetchval("SELECT cause FROM lease WHERE id = 'b'")
        assert cause == Cause.RESTORED, "nobody stopped it"
        summary = await journal_summary(books)
        assert (summary.sum_nano, summary.off_balance) == (0, 0)
        with pytest.raises(asyncpg.PostgresError):  # the triggers and grants came back, too
            await pool.execute("UPDATE entry SET amount = 1")
        assert await pool.fetch("SELECT * FROM lease") == []  # and whose rows one sees
        await pay_in(books, Credit(TENANT, USD, "after", "test"))
    finally:
        pool.terminate()


async def test_nothing_is_restored_over_anything_nor_backed_up_over_a_file(dsn, tmp_path):
    file = tmp_path / "books.backup"
    await backup(dsn, file)
    for call in (restore(dsn, file), backup(dsn, file)):
        with pytest.raises(Fault) as caught:
            await call
        assert caught.value.reason in ("RESTORE_NOT_EMPTY", "BACKUP_FILE")
        assert caught.value.remedy


async def test_an_encrypted_backup_needs_its_key_and_is_whole_or_nothing(
    world, dsn, empty, tmp_path, monkeypatch
):
    monkeypatch.setattr(sealed, "_WORK", 1)
    monkeypatch.setattr(sealed, "_MEMORY", 8_192)
    await some_books(world)
    file, key = tmp_path / "books.backup", b"0123456789abcdef0123456789abcdef\n"
    written = await backup(dsn, file, key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    assert b"PGDMP" not in content
    assert b"manifest.json" not in content
    torn = tmp_path / "torn"
    for damaged in (content[:-1], content[: len(content) // 2], content[:-9] + b"x" + content[-8:]):
        torn.write_bytes(damaged)
        with pytest.raises(Fault) as refused:
            await restore(empty, torn, key)
        assert refused.value.reason == "BACKUP_MALFORMED"
    for secret, reason in (
        (None, "BACKUP_ENCRYPTED"), (b"another key, also long enough", "BACKUP_MALFORMED"),
        (b"short", "KEY_TOO_SHORT")):  # fmt: skip
        with pytest.raises(Fault) as refused:
            await restore(empty, file, secret)
        assert refused.value.reason == reason
    found = await restore(empty, file, key.strip())  # a line break more or less is no other key
    assert found == written


@pytest.mark.parametrize("damage", ["cut", "flipped", "not one"])
async def test_a_damaged_backup_changes_nothing(dsn, empty, tmp_path, damage):
    file = tmp_path / "books.backup"
    await backup(dsn, file)
    content = bytearray(await asyncio.to_thread(file.read_bytes))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"x" * 1_000)
    await asyncio.to_thread(file.write_bytes, content)
    with pytest.raises(Fault) as caught:
        await restore(empty, file)
    assert caught.value.reason == "BACKUP_MALFORMED"
    db = await asyncpg.connect(empty)
    try:
        assert await db.fetchval("SELECT to_regnamespace('billing')") is None
    finally:
        await db.close()


async def test_books_that_are_not_those_that_were_saved_are_refused(world, dsn, empty, tmp_path):
    """What came back is whole in itself, but its head is not the one that was written down."""
    await some_books(world)
    file, other = tmp_path / "books.backup", tmp_path / "other.backup"
    head = (await backup(dsn, file)).head
    with tarfile.open(file) as saved, tarfile.open(other, "w:") as made:
        for member in saved.getmembers():
            content = saved.extractfile(member).read()
            if member.name == "manifest.json":
                content = content.replace(head.encode(), head[::-1].encode())
            made.addfile(member, io.BytesIO(content))
    with pytest.raises(Fault) as caught:
        await restore(empty, other)
    assert caught.value.reason == "RESTORE_DIFFERS"
