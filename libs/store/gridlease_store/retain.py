"""Takes old months off billing's books: rolled up, detached, archived, and dropped last of all.

Nothing goes that somebody needs: a month stays while a line or a credit of it is on no final
invoice, or while late usage may still correct it. What was detached is dropped only once it lies
in an archive that was read back, and when the last invoice that it is behind is older than the law
asks for. Source: docs/operate-books.md, Retention.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import asyncpg
from gridlease_kernel.faults import Conflict, Invalid, Precondition

from .connect import connect

BOOKS: Final = ("journal", "entry", "line")
LATE_DAYS: Final = 35  # how long a node may tell of usage. Source: docs/invoices.md
_FORM: Final = "gridlease months 1"
_ORDER: Final = {
    "journal": "recorded_ms, id",
    "entry": "recorded_ms, journal, account",
    "line": "recorded_ms, lease, segment, meter, class",
}
_WAIT_S: Final = 10.0
_TRIES: Final = 10
_PAUSE_S: Final = 0.5
_LOCK_MS: Final = 2_000
_COPY_S: Final = 3_600.0
_DAY_MS: Final = 86_400_000
_MONTHS: Final = """
SELECT c.relname AS name, EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) AS attached
FROM pg_class AS c WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind = 'r'
    AND c.relname ~ '^(journal|entry|line)_[0-9]{4}_[0-9]{2}$' ORDER BY c.relname
"""
_NOW: Final = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8"


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the books, and what is (to be) done with it.

    ``why``: what keeps it; empty = nothing does.
    """

    month: str  # "2026-11"
    action: str  # keep, detach, archive or drop: the furthest that may be done
    why: str
    rows: int
    unbilled: int
    tables: tuple[str, ...]
    files: tuple[str, ...] = ()


async def retain(
    dsn: str,
    before: str,
    *,
    archive: Path | None = None,
    dry_run: bool = False,
    keep_years: int = 10,
) -> list[Month]:
    """Takes months before one off; each with what was (or, of a dry run, would be) done.

    Args:
        dsn: The owner's address.
        before: The first month that stays, such as "2025-01".
        archive: A folder to write the months to; without one they stay as detached tables.
        dry_run: Only say what would be done.
        keep_years: How long the law asks for what is behind a final invoice.

    Raises:
        Invalid: MONTH_MALFORMED.
        Precondition: ARCHIVE_FOLDER, ARCHIVE_DIFFERS, DATABASE_REFUSED.
        Conflict: BOOKS_BUSY: the tables were in use for too long; run it again.
        Unreachable: the database does not answer.
    """
    before_ms = _starts_ms(before)
    if archive is not None:
        _writable(archive)
    connection = await connect(dsn, wait_s=_WAIT_S, settings={"timezone": "UTC"})
    try:
        await connection.execute("SET search_path TO billing")
        await connection.execute("SELECT set_config('gridlease.tenant', '*', false)")
        now_ms = int(await connection.fetchval(_NOW))
        if before_ms > now_ms:
            raise _not_over(before)
        plan = await _plan(connection, before_ms, now_ms, keep_years, archive=archive is not None)
        if dry_run:
            return plan
        if any(it.action != "keep" for it in plan):
            await _patiently(connection, f"SELECT roll_up({before_ms})")
        return [await _carry_out(connection, it, archive) for it in plan]
    finally:
        connection.terminate()


async def _plan(
    connection: asyncpg.Connection[Any],
    before_ms: int,
    now_ms: int,
    keep_years: int,
    *,
    archive: bool,
) -> list[Month]:
    tables: dict[str, list[tuple[str, bool]]] = {}
    for it in await connection.fetch(_MONTHS):
        books, year, month = it["name"].split("_")
        assert books in BOOKS, it
        if _starts_ms(f"{year}-{month}") < before_ms:
            tables.setdefault(f"{year}-{month}", []).append((it["name"], it["attached"]))
    plan = []
    for month, found in sorted(tables.items()):
        await _show(connection, [name for name, attached in found if not attached])
        rows = 0
        for name, _ in found:
            rows += int(await connection.fetchval(f"SELECT count(*) FROM {name}"))  # noqa: S608
        needs = await connection.fetchrow(
            "SELECT * FROM month_needs($1, $2)", _starts_ms(month), _ends_ms(month)
        )
        assert needs is not None
        kept = await _legal(connection, needs["issued_ms"], found)
        plan.append(
            _decided(month, found, rows, needs["unbilled"], kept, now_ms, keep_years, archive)
        )
    return plan


def _decided(
    month: str,
    found: list[tuple[str, bool]],
    rows: int,
    unbilled: int,
    issued_ms: int,
    now_ms: int,
    keep_years: int,
    archive: bool,
) -> Month:
    names = tuple(name for name, _ in found)
    if unbilled:
        why = f"{unbilled} lines or credits are on no final invoice"
        return Month(month, "keep", why, rows, unbilled, names)
    if _ends_ms(month) + LATE_DAYS * _DAY_MS > now_ms:
        why = f"late usage may correct it for {LATE_DAYS} days"
        return Month(month, "keep", why, rows, unbilled, names)
    if not archive:
        return Month(month, "detach", "no archive is named", rows, unbilled, names)
    free_ms = max(issued_ms, _ends_ms(month)) + keep_years * 366 * _DAY_MS
    if free_ms > now_ms:
        day = datetime.datetime.fromtimestamp(free_ms / 1_000, datetime.UTC).date()
        why = f"the law may ask for it until {day}: it stays as detached tables"
        return Month(month, "archive", why, rows, unbilled, names)
    return Month(month, "drop", "", rows, unbilled, names)


async def _legal(
    connection: asyncpg.Connection[Any],
    issued_ms: int | None,
    found: list[tuple[str, bool]],
) -> int:
    """When the last invoice that a month is behind was issued; 0 = it is behind none."""
    last = issued_ms or 0
    for name, attached in found:
        if not attached and name.startswith("line_"):
            told = await connection.fetchval(
                "SELECT max(i.issued_ms) FROM invoice_line AS c"  # noqa: S608 - a table's name
                " JOIN invoice AS i ON i.id = c.invoice AND i.state = 'FINAL'"
                f" WHERE c.lease IN (SELECT lease FROM {name})"
            )
            last = max(last, told or 0)
    return last


async def _carry_out(
    connection: asyncpg.Connection[Any], month: Month, archive: Path | None
) -> Month:
    """Does what was planned of one month; each step leaves the books right."""
    if month.action == "keep":
        return month
    for name in month.tables:
        books = name.partition("_")[0]
        if await connection.fetchval(
            "SELECT true FROM pg_inherits WHERE inhrelid = $1::regclass", name
        ):
            await _patiently(connection, f"ALTER TABLE {books} DETACH PARTITION {name}")
    await _show(connection, month.tables)
    if archive is None:
        return month
    files = await _archived(connection, month, archive)
    if month.action == "drop":
        for name in month.tables:
            await _patiently(connection, f"DROP TABLE {name}")
    return replace(month, files=tuple(files))


async def _archived(connection: asyncpg.Connection[Any], month: Month, archive: Path) -> list[str]:
    """Writes a month's tables and their manifest, and reads them back."""
    told = []
    for name in month.tables:
        file = archive / f"{name}.csv.gz"
        columns = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
            " AND NOT attisdropped ORDER BY attnum",
            name,
        )
        rows = int(await connection.fetchval(f"SELECT count(*) FROM {name}"))  # noqa: S608
        digest = await _copy(connection, name, file)
        await asyncio.to_thread(_read_back, file, digest, rows)
        told.append(
            {
                "table": name,
                "columns": [it["attname"] for it in columns],
                "rows": rows,
                "file": file.name,
                "content_sha256": digest,
                "file_sha256": await asyncio.to_thread(_digest, file),
            }
        )
    head = await connection.fetchval("SELECT encode(books_head(), 'hex')")
    manifest = {"form": _FORM, "month": month.month, "head": head, "tables": told}
    path = archive / f"{month.month}.json"
    await asyncio.to_thread(_write, path, json.dumps(manifest, indent=1).encode())
    return [*(str(it["file"]) for it in told), path.name]


async def _copy(connection: asyncpg.Connection[Any], name: str, file: Path) -> str:
    """A table as compressed CSV, in the order of its key; the digest of the CSV."""
    part, digest = file.with_name(f".{file.name}.part"), hashlib.sha256()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    query = f"SELECT * FROM {name} ORDER BY {_ORDER[name.partition('_')[0]]}"  # noqa: S608
    with os.fdopen(descriptor, "wb") as raw:
        # No name and no time in it: the same rows are the same file.
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:

            async def write(piece: bytes) -> None:
                digest.update(piece)
                await asyncio.to_thread(packed.write, piece)

            await connection.copy_from_query(query, output=write, format="csv", timeout=_COPY_S)
        raw.flush()
        os.fsync(raw.fileno())
    part.replace(file)
    return digest.hexdigest()


def _read_back(file: Path, digest: str, rows: int) -> None:
    found, lines = hashlib.sha256(), 0
    quoted = False
    with gzip.open(file, "rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
            # A line break between quotes is a part of a field.
            for outside in piece.split(b'"'):
                lines += 0 if quoted else outside.count(b"\n")
                quoted = not quoted
            quoted = not quoted
    if found.hexdigest() != digest or lines != rows:
        raise Precondition(
            f"{file} does not read back as it was written.",
            reason="ARCHIVE_DIFFERS",
            field="archive",
            remedy="Nothing was dropped. Check the disk, and run it again into another folder.",
        )


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


async def _patiently(connection: asyncpg.Connection[Any], statement: str) -> None:
    """One statement that may want a table for itself: it queues others for 2 s at most, gives up,
    and tries again."""
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                await connection.execute(statement)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_PAUSE_S)
            continue
        return
    raise Conflict(
        "The books were in use for too long.",
        reason="BOOKS_BUSY",
        remedy="Run it again: what was done stays done, and nothing is half done.",
    )


async def _show(connection: asyncpg.Connection[Any], tables: Iterable[str]) -> None:
    """A detached month has no policy of its own: its owner, and nobody else, may look at it."""
    for name in tables:
        await _patiently(connection, f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")


def _writable(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Precondition(
            f"{folder} cannot be written.",
            reason="ARCHIVE_FOLDER",
            field="archive",
            remedy="Name a folder that is there and that you may write.",
        )


def _not_over(month: str) -> Invalid:
    return Invalid(
        f"Months before {month} are not over yet.",
        reason="MONTH_NOT_OVER",
        field="before",
        remedy="Name this month, or an earlier one.",
    )


def _starts_ms(month: str) -> int:
    found = re.fullmatch(r"(\d{4})-(\d{2})", month)
    try:
        assert found is not None
        first = datetime.datetime(int(found[1]), int(found[2]), 1, tzinfo=datetime.UTC)
    except (AssertionError, ValueError) as error:
        raise Invalid(
            f"{month!r} is no month.",
            reason="MONTH_MALFORMED",
            field="before",
            remedy="Write it as 2025-01.",
        ) from error
    return round(first.timestamp() * 1_000)


def _ends_ms(month: str) -> int:
    year, number = int(month[:4]), int(month[5:])
    return _starts_ms(f"{year + number // 12}-{number % 12 + 1:02d}")


def as_dicts(months: list[Month]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(it) for it in months]
