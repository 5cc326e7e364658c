"""backup, restore: the operator's machine, straight to PostgreSQL; books check: by the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import report_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.options import Options
from gridlease_cli.output import show, show_rows

if TYPE_CHECKING:
    from gridlease_store.backup import Manifest

books = typer.Typer(help="The books, for operators.", rich_markup_mode=None, no_args_is_help=True)
_OWN = "gridlease"  # the database of ./dev up
FileArgument = Annotated[Path, typer.Argument(help="The backup")]
Postgres = Annotated[str, typer.Option(help="The owner's DSN; else --state, else the environment")]
KeyFile = Annotated[
    Path | None, typer.Option(help="Encrypt it under what this file holds, or read it so")
]
State = Annotated[Path | None, typer.Option(help="State folder of ./dev up, with its own server")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.add_typer(books, name="books")


def backup(
    context: typer.Context,
    file: FileArgument,
    postgres: Postgres = "",
    state: State = None,
    key_file: KeyFile = None,
) -> None:
    """Write all rooms' databases, as of one instant, to a new file that only you may read."""
    store = _store()
    options = options_of(context)
    with database(options, postgres, state) as dsn:
        found = asyncio.run(store.backup(dsn, file, _secret(key_file)))
    show(options, dataclasses.asdict(found), _lines(f"written to {file}", found))


def restore(
    context: typer.Context,
    file: FileArgument,
    postgres: Postgres = "",
    state: State = None,
    key_file: KeyFile = None,
) -> None:
    """Fill an empty database from a backup; billing then waits for old grants to end."""
    store = _store()
    options = options_of(context)
    with database(options, postgres, state, make=True) as dsn:
        found = asyncio.run(store.restore(dsn, file, _secret(key_file)))
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
    lines.append(
        f"suspense  {words.money(found.suspense_nano, 'USD')},"
        f" {found.unexplained_count} without an alarm"
    )
    alarms = ", ".join(f"{kind} {count}" for kind, count in sorted(found.alarms.items()))
    lines.append(f"alarms    {alarms or 'none'} (7 days)")
    show(options, found, lines)
    if not found.whole:
        raise typer.Exit(1)


@books.command("suspense")
def suspense(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Only this tenant's")] = "",
    closed: Annotated[
        bool, typer.Option("--all", help="Also what was charged or written off since")
    ] = False,
) -> None:
    """Run time that nodes told beyond what may be charged: by lease, why, and how much."""
    options = options_of(context)
    owner = tenant if not tenant or "/" in tenant else f"tenants/{tenant}"

    async def work(client: Client) -> pb.ListSuspenseResponse:
        return await client.list_suspense(tenant=owner, closed=closed)

    found = reach(options, work, operator=True)
    heads = ("LEASE", "SEGMENT", "NODE", "CAUSE", "TOLD", "CHARGED", "AMOUNT", "IN SUSPENSE")
    rows = [
        (
            it.lease,
            str(it.segment),
            words.short(it.node),
            it.cause,
            words.span(it.told_ns),
            words.span(it.charged_ns),
            words.money(it.amount_nano, it.currency),
            words.money(it.open_nano, it.currency),
        )
        for it in found.rows
    ]
    show_rows(options, list(found.rows), heads, rows)


@books.command("write-off")
def write_off(
    context: typer.Context,
    lease: Annotated[str, typer.Argument(help="A lease with something in suspense")],
    note: Annotated[str, typer.Option(help="Why; kept in the books")],
    request_id: Annotated[str, typer.Option(help="The same id writes off once")] = "",
) -> None:
    """Take what a lease has in suspense out of it, for good. Nobody is charged."""
    options = options_of(context)

    async def work(client: Client) -> pb.WriteOffSuspenseResponse:
        return await client.write_off_suspense(lease, note, request_id=request_id)

    found = reach(options, work, operator=True)
    show(options, found, [f"{lease}: {words.money(found.amount_nano, found.currency)} written off"])


def _secret(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Precondition(
            f"{path} cannot be read: {error.strerror or error}",
            reason="FILE_UNREADABLE",
            field="--key-file",
            remedy="Name a file that you may read.",
        ) from error


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
        raise no_store() from error


def no_store() -> Precondition:
    """The fault where the commands of the operator's machine are run elsewhere."""
    return Precondition(
        "This installation has no database client.",
        reason="STORE_MISSING",
        remedy="Run it on the operator's machine, with gridlease[store] installed.",
    )


@contextlib.contextmanager
def database(
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
