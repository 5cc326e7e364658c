"""Brings one room's schema up to date: numbered SQL files, applied in order, once, forward only.

A room keeps ``migrations/NNNN_name.sql`` files; each is one alembic revision whose body is that
SQL, and the schema holds the version table. All of it, with the schema and the room's role, is
one transaction under an advisory lock, so any number of processes may start at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any, Final

import asyncpg
from gridlease_kernel.faults import Fault, Precondition, Unreachable

from .connect import connect
from .faults import fault_of
from .revisions import Revision, read_revisions, scripts

_LOG: Final = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
# One for all rooms of a database: creating schemas and roles side by side would collide.
_LOCK: Final = 0x6772_6964_6C65_6173  # "gridleas"
_DDL_LOCK_MS: Final = 2_000  # a migration queues traffic behind itself no longer than this
_BUSY_PAUSE_S: Final = 1.0  # then it lets all of it pass before it tries again
_BUSY_S: Final = 120.0  # and says so after this
_APPLY_S: Final = 600.0

# A role that reads and writes in its schema and nowhere else. Later grants and revokes of a
# revision stand, because default privileges apply only as a table is created.
_PREPARE: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role} {login};
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles are shared between databases: another's migration was first
END $$;
GRANT USAGE ON SCHEMA {schema} TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role};
SET LOCAL search_path TO {schema};
"""


async def migrate(
    dsn: str,
    schema: str,
    source: str | Path,
    *,
    role: str | None = None,
    login: bool = False,
    timeout_s: float = 60.0,
) -> list[str]:
    """Apply what is missing; the names of the revisions applied now.

    Args:
        dsn: The owner's address: it may create schemas and roles.
        schema: The room's schema; created if absent.
        source: A package such as ``gridlease_billing`` (its ``migrations/`` folder), or a folder.
        role: The role that the service works as, limited to this schema; default ``gl_<schema>``.
            Created if absent.
        login: Whether a role created now may log in (for the embedded server, which trusts its
            private socket).
        timeout_s: How long to wait for others who migrate, and for the database, in seconds.

    Raises:
        Precondition: MIGRATION_FAILED (nothing was changed), MIGRATION_FILES, DATABASE_TOO_NEW or
            DATABASE_REFUSED.
        Unreachable: the database did not answer in time; or DATABASE_BUSY: what a revision changes
            was in use for too long by others, who were not stopped: try again.
    """
    role = role or f"gl_{schema}"
    assert _NAME.fullmatch(schema), schema
    assert _NAME.fullmatch(role), role
    revisions = list(read_revisions(source))
    prepare = _PREPARE.format(schema=schema, role=role, login="LOGIN" if login else "NOLOGIN")
    connection = await connect(dsn, wait_s=timeout_s, settings={"timezone": "UTC"})
    try:
        async with asyncio.timeout(timeout_s + _APPLY_S):
            until_s = asyncio.get_running_loop().time() + _BUSY_S
            while True:
                try:
                    return await _once(connection, schema, role, prepare, revisions, timeout_s)
                except _BusyError as busy:
                    if asyncio.get_running_loop().time() >= until_s:
                        raise _too_busy(schema, busy) from busy
                    _LOG.warning("a migration gives way to traffic: %s", busy)
                await asyncio.sleep(_BUSY_PAUSE_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise _as_fault(error, schema, "") from error
    finally:
        connection.terminate()


async def _once(
    connection: asyncpg.Connection[Any],
    schema: str,
    role: str,
    prepare: str,
    revisions: list[Revision],
    timeout_s: float,
) -> list[str]:
    async with connection.transaction():
        await _lock(connection, timeout_s)
        await connection.execute(prepare)
        applied = await _upgrade(connection, schema, revisions)
        # Written by migrations alone.
        await connection.execute(
            f"REVOKE INSERT, UPDATE, DELETE ON {schema}.alembic_version FROM {role}"
        )
    return applied


async def _lock(connection: asyncpg.Connection[Any], timeout_s: float) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = {round(timeout_s * 1_000)}")
    await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
    await connection.execute(f"SET LOCAL lock_timeout = {_DDL_LOCK_MS}")


async def _upgrade(
    connection: asyncpg.Connection[Any], schema: str, revisions: list[Revision]
) -> list[str]:
    table = f"{schema}.alembic_version"
    version = None
    if await connection.fetchval("SELECT to_regclass($1)", table) is not None:
        version = await connection.fetchval(f"SELECT version_num FROM {table}")  # noqa: S608
    # Alembic is synchronous and takes its time: not in the service's loop.
    missing = await asyncio.to_thread(scripts, revisions, schema, version)
    for script in missing:
        try:
            await connection.execute(script.sql)
        except asyncpg.LockNotAvailableError as error:
            raise _BusyError(f"{schema} at {script.name}: {error}") from error
        except asyncpg.PostgresError as error:
            raise _as_fault(error, schema, f" at {script.name}") from error
    return [it.name for it in missing]


class _BusyError(Exception):
    """What a revision changes is in use."""


def _too_busy(schema: str, busy: _BusyError) -> Unreachable:
    return Unreachable(
        f"Migrating {busy}: it was in use for {_BUSY_S:.0f} s.",
        reason="DATABASE_BUSY",
        remedy=f"End long transactions on schema {schema}; nothing was changed, and it goes on.",
    )


def _as_fault(error: Exception, schema: str, where: str) -> Fault:
    known = fault_of(error)
    if isinstance(known, Unreachable):
        return known
    detail = getattr(error, "detail", None)
    return Precondition(
        f"Migrating schema {schema} failed{where}: {error}" + (f" ({detail})" if detail else ""),
        reason="MIGRATION_FAILED",
        remedy="Nothing was changed. Check that the migrating role owns the schema.",
    )
