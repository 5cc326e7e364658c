"""whoami, keys, tenants, ca."""

from __future__ import annotations

from typing import Annotated

import typer
from gridlease.gateway.v1 import gateway_pb2
from gridlease_kernel.units import parse_duration
from gridlease_mesh import ca
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

keys = typer.Typer(help="API keys: list, create, revoke.", rich_markup_mode=None)
tenants = typer.Typer(help="Tenants. Operators.", rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("whoami")(whoami)
    app.add_typer(keys, name="keys", invoke_without_command=True, callback=keys_root)
    app.add_typer(tenants, name="tenants", callback=tenants_root)
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("ca", context_settings=passed_on, add_help_option=False)(authority)


def authority(context: typer.Context) -> None:
    """Keys and tokens of the mesh, offline: init, broker, role, leaf, node, revoke."""
    raise typer.Exit(ca.main(context.args))


def whoami(context: typer.Context) -> None:
    """Whose key this is."""
    options = options_of(context)

    async def work(client: Client) -> gateway_pb2.GetCallerResponse:
        return await client.caller()

    found = reach(options, work)
    lines = [_role(found.role), found.tenant, found.project, found.key]
    show(options, found, [line for line in lines if line])


def keys_root(context: typer.Context) -> None:
    """API keys of the project; operators see all."""
    if context.invoked_subcommand is None:
        list_keys(context)


@keys.command("list")
def list_keys(
    context: typer.Context,
    project: Annotated[str, typer.Option(help="projects/{project}")] = "",
) -> None:
    """Keys without their secrets, newest first."""
    options = options_of(context)

    async def work(client: Client) -> list[gateway_pb2.ApiKey]:
        return await client.list_api_keys(project=project)

    found = reach(options, work)
    heads = ("KEY", "ROLE", "PROJECT", "NAME", "MADE", "GOOD UNTIL", "REVOKED")
    show_rows(options, found, heads, [_row(key) for key in found])


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="For people")] = "",
    project: Annotated[str, typer.Option(help="projects/{project}; default: one's own")] = "",
    for_operator: Annotated[
        bool, typer.Option("--for-operator", help="An operator's key. Operators.")
    ] = False,
    ttl: Annotated[str, typer.Option(help="How long it is good for; default: until revoked")] = "",
) -> None:
    """Make a key; its secret is shown this once."""
    options = options_of(context)
    ttl_ms = parse_duration(ttl, "--ttl") if ttl else 0

    async def work(client: Client) -> gateway_pb2.CreateApiKeyResponse:
        return await client.create_api_key(
            project=project, operator=for_operator, display_name=name, ttl_ms=ttl_ms
        )

    found = reach(options, work, operator=for_operator)
    show(options, found, [f"{found.api_key.name} (shown once):", found.secret])


@keys.command("revoke")
def revoke_key(
    context: typer.Context, key: Annotated[str, typer.Argument(help="keys/{key}, or its id")]
) -> None:
    """End a key at once."""
    options = options_of(context)

    async def work(client: Client) -> gateway_pb2.ApiKey:
        return await client.revoke_api_key(key if "/" in key else f"keys/{key}")

    found = reach(options, work)
    show(options, found, [f"{found.name} revoked"])


def tenants_root() -> None:
    """Tenants. Operators."""


@tenants.command("create")
def create_tenant(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="Its id")],
    project: Annotated[str, typer.Option(help="Its first project's id")] = "",
) -> None:
    """A tenant with a first project. Operators."""
    options = options_of(context)

    async def work(client: Client) -> gateway_pb2.CreateTenantResponse:
        return await client.create_tenant(tenant, project)

    found = reach(options, work, operator=True)
    show(options, found, [found.tenant, found.project])


def _role(role: gateway_pb2.Role.ValueType) -> str:
    return gateway_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def _row(key: gateway_pb2.ApiKey) -> tuple[str, ...]:
    return (
        words.short(key.name),
        _role(key.role),
        words.short(key.project) or "-",
        key.display_name or "-",
        words.clock(key.create_time),
        words.clock(key.expire_time),
        words.clock(key.revoke_time),
    )
