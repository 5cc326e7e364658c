"""The root of the command, and how a command gets to the platform."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from gridlease_sdk import where
from gridlease_sdk.client import Client

from gridlease_cli.options import HELP, Options

_MADE = re.compile(r"-[0-9a-z]{8}$")  # the end of every job's own name
_RECENT = 200  # jobs looked through for a name

T = TypeVar("T")

app = typer.Typer(
    name="gridlease",
    help="Rent compute: submit jobs, watch them, read what they cost.",
    epilog=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gridlease {importlib.metadata.version('gridlease')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version),
    ] = False,
) -> None:
    """Rent compute: submit jobs, watch them, read what they cost."""


def options_of(context: typer.Context) -> Options:
    """The options of this run."""
    options = context.find_root().obj
    assert isinstance(options, Options), options
    return options


def reach(
    options: Options, work: Callable[[Client], Coroutine[Any, Any, T]], *, operator: bool = False
) -> T:
    """The result of ``work`` with a client; ``operator`` prefers the operator's key.

    Raises:
        Fault: whatever went wrong.
    """

    async def do() -> T:
        found = where.find(
            options.environ,
            endpoint=options.endpoint,
            api_key=options.api_key,
            client_file=options.client_path,
            operator=operator or options.operator,
        )
        authority = options.environ.get("GRIDLEASE_CA_FILE", "")
        ca_file = Path(authority) if authority else None
        async with Client.connect(found.endpoint, found.api_key, ca_file=ca_file) as client:
            return await work(client)

    return asyncio.run(do())


async def job_name(client: Client, given: str) -> str:
    """The full name of a job given whole, by its last part, or by the name it was submitted with.

    Of several jobs with the same name it is the newest.
    """
    if "/" in given:
        return given
    caller = await client.caller()
    if not caller.project:
        return given
    if _MADE.search(given) is None:
        for job in await client.list_jobs(limit=_RECENT):
            if job.spec.display_name == given:
                return job.name
    return f"{caller.project}/jobs/{given}"
