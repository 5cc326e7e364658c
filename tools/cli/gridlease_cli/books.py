"""backup, restore: the operator's machine, straight to PostgreSQL; books check: by the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from gridlease.type.v1 import report_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_sdk.client import Client

from gridlease_cli.app import options_of, reach
from gridlease_cli.options import Options
from gridlease_cli.output import show

if TYPE_CHECKING:
    from gridlease_store.backup import Manifest

books = typer.Typer(help="The books, for operators.", rich_markup_mode=None, no_args_is_help=True)
_OWN = "gridlease"  # the database of ./dev up
FileArgument = Annotated[Path, typer.Argument(help="The backup")]
Postgres = Annotated[str, typer.Option(help="The owner's DSN; else --state, else the environment")]
State = Annotated[Path | None, typer.Option(help="State folder of ./dev up, with its own server")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.add_typer(books, name="books")


def backup(
    context: typer.Context, file: FileArgument, postgres: Postgres = "", state: State = None
) -> None:
    """Write all rooms' databases, as of one instant, to a new file that only you may read."""
    store = _store()
    options = options_of(context)
    with _database(options, postgres, state) as dsn:
        found = asyncio.run(store.backup(dsn, file))
    show(options, dataclasses.asdict(found), _lines(f"written to {file}", found))


def restore(
    context: typer.Context, file: FileArgument, postgres: Postgres = "", state: State = None
) -> None:
    """Fill an empty database from a backup; billing then waits for old grants to end."""
    store = _store()
    options = options_of(context)
    with _database(options, postgres, state, make=True) as dsn:
        found = asyncio.run(store.restore(dsn, file))
    lines = _lines(f"restored from {file}", found)
    lines.append("next      start the platform: billing fences every lease, waits for the longest")
    lines.append("          grant to end, and then serves")
    show(options, dataclasses.asdict(found), lines)


@books.command("check")
def check(context: typer.Context) -> None:
    """Look through the books: links, sums, balances, months, alarms. Fails if anything is wrong."""
    options = options_of(context)

    async def work(client: Client) -> report_pb2.BooksCheck:
        return await client.check_books()

    found = reach(options, work, operator=True)
    lines = [
        f"whole     {'yes' if found.whole else 'NO'}",
        f"head      {found.head}",
        f"journals  {found.journal_count}, entries {found.entry_count}, sum {found.sum_nano}",
        f"broken    {', '.join(found.broken_links) or 'none'}",
        f"balances  {found.off_balance_count} differ from the books",
        f"months    {found.months_ahead} from this one on, {found.astray_count} rows in none",
    ]
    alarms = ", ".join(f"{kind} {count}" for kind, count in sorted(found.alarms.items()))
    lines.append(f"alarms    {alarms or 'none'} (7 days)")
    show(options, found, lines)
    if not found.whole:
        raise typer.Exit(1)


class _Store:
    """The functions of ``gridlease_store`` that are needed here."""

    def __init__(self) -> None:
        from gridlease_store import backup  # noqa: PLC0415 - no need of it for tenants

        self.backup = backup.backup
        self.restore = backup.restore


def _store() -> _Store:
    try:
        return _Store()
    except ImportError as error:
        raise Precondition(
            "This installation has no database client.",
            reason="STORE_MISSING",
            remedy="Run it on the operator's machine, with gridlease[store] installed.",
        ) from error


@contextlib.contextmanager
def _database(
    options: Options, postgres: str, state: Path | None, *, make: bool = False
) -> Iterator[str]:
    """The owner's DSN; a server of a state folder is started for the while if it does not run."""
    names = ("GRIDLEASE_POSTGRES_OWNER_DSN", "GRIDLEASE_POSTGRES_DSN")
    known = [options.environ[it] for it in names if options.environ.get(it)]
    if postgres or (state is None and known):
        yield postgres or known[0]
        return
    if state is None:
        raise Invalid(
            "Which database?",
            reason="DATABASE_MISSING",
            field="--postgres",
            remedy="Write --postgres DSN, or --state DIR for the server of ./dev up.",
        )
    from gridlease_store.embedded import EmbeddedPostgres  # noqa: PLC0415 - as above

    server = EmbeddedPostgres(state / "postgres")
    ran = server.pid is not None
    server.start()
    try:
        if make:
            asyncio.run(_make(server.dsn()))
        yield server.dsn(_OWN)
    finally:
        if not ran:
            server.stop()


async def _make(dsn: str) -> None:
    """The database that ./dev up uses, empty, if it is not there."""
    from gridlease_store.connect import connect  # noqa: PLC0415 - as above

    connection = await connect(dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _OWN):
            await connection.execute(f"CREATE DATABASE {_OWN}")
    finally:
        await connection.close()


def _lines(first: str, found: Manifest) -> list[str]:
    return [
        first,
        f"as of     {found.made_at}",
        f"rooms     {', '.join(found.rooms)}",
        f"head      {found.head}",
        f"size      {found.dump_bytes} bytes, sha256 {found.dump_sha256}",
    ]
