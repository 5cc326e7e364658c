"""One connection, waiting a bounded time for a database that is starting or restarting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
from gridlease_kernel.faults import Precondition, Unreachable

_ATTEMPT_S = 5.0
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 1.0
# What waiting does not cure: a wrong name, a wrong password, an address that is none.
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    ValueError,
)
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def connect(
    dsn: str,
    *,
    wait_s: float = 30.0,
    command_timeout_s: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> asyncpg.Connection[Any]:
    """A connection with jsonb as Python values; tries again for at most ``wait_s`` seconds.

    Raises:
        Precondition: DATABASE_REFUSED for what waiting does not cure.
        Unreachable: DATABASE_UNREACHABLE after ``wait_s`` seconds.
    """
    deadline = time.monotonic() + wait_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            connection = await asyncpg.connect(
                dsn,
                timeout=_ATTEMPT_S,
                command_timeout=command_timeout_s,
                server_settings=dict(settings or {}),
            )
        except _REFUSALS as error:
            raise Precondition(
                f"The database refuses this address: {error}",
                reason="DATABASE_REFUSED",
                field="postgres",
                remedy="Check the user, the database and the password in --postgres.",
            ) from error
        except _AWAY as error:
            if time.monotonic() + pause_s > deadline:
                raise Unreachable(
                    f"The database did not answer within {wait_s:.0f} s: {error}",
                    reason="DATABASE_UNREACHABLE",
                    field="postgres",
                    remedy="Check that PostgreSQL runs at that address.",
                    retry_after_ms=1_000,
                ) from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)
        else:
            try:
                await with_jsonb(connection)
            except BaseException:  # cancelled, most likely: nobody else would close it
                connection.terminate()
                raise
            return connection


async def with_jsonb(connection: asyncpg.Connection[Any] | Any) -> None:
    """Let jsonb columns be dicts and lists."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
    )
