"""books retain: takes old months off the books, on the operator's machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gridlease_cli.app import options_of
from gridlease_cli.books import Postgres, State, books, database, no_store
from gridlease_cli.output import emit, show_cells


def register(_app: typer.Typer) -> None:
    """Add the command; it is one of ``books``."""
    books.command("retain")(retain)


def retain(
    context: typer.Context,
    before: Annotated[str, typer.Option(help="The first month that stays, such as 2025-01")],
    archive: Annotated[
        Path | None, typer.Option(help="Write the months to this folder; else they stay detached")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done")] = False,
    keep_years: Annotated[
        int, typer.Option(min=0, max=100, help="How long the law asks for invoices' months")
    ] = 10,
    postgres: Postgres = "",
    state: State = None,
) -> None:
    """Roll up, detach and archive months; drop those archived that nobody may ask for any more."""
    try:
        from gridlease_store import retain as store  # noqa: PLC0415 - no need of it for tenants
    except ImportError as error:
        raise no_store() from error
    options = options_of(context)
    with database(options, postgres, state) as dsn:
        found = asyncio.run(
            store.retain(dsn, before, archive=archive, dry_run=dry_run, keep_years=keep_years)
        )
    if options.format != "table":
        emit(options, {"dry_run": dry_run, "months": store.as_dicts(found)})
        return
    rows = [
        (it.month, it.action, str(it.rows), ", ".join(it.files) or "-", it.why or "-")
        for it in found
    ]
    show_cells(("MONTH", "WOULD" if dry_run else "DONE", "ROWS", "FILES", "BECAUSE"), rows)
