"""Alembic's part of migrating: the revision map, the version table, one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script.base import Script
from alembic.script.revision import RevisionMap
from gridlease_kernel.faults import Precondition
from sqlalchemy import Connection, exc, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .connect import connect

# One for all rooms of a database: creating schemas and roles side by side would collide.
_LOCK = 0x6772_6964_6C65_6173  # "gridleas"
_DDL_LOCK_TIMEOUT = "5s"  # a migration never queues traffic behind itself for longer
_APPLY_S = 600.0


@dataclass(frozen=True, slots=True)
class Revision:
    """One file: its id (the name without ``.sql``) and its SQL."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schema should come to."""

    schema: str
    role: str
    login: bool
    timeout_s: float
    revisions: tuple[Revision, ...]


def apply(dsn: str, plan: Plan) -> list[str]:
    """Bring the schema up to the plan, in a loop of this thread's own; what was applied."""
    return asyncio.run(_apply(dsn, plan))


async def _apply(dsn: str, plan: Plan) -> list[str]:
    async def creator() -> Any:
        return await connect(dsn, wait_s=plan.timeout_s)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator, poolclass=NullPool)
    try:
        async with asyncio.timeout(plan.timeout_s + _APPLY_S), engine.begin() as connection:
            return await connection.run_sync(_upgrade, plan)
    except exc.DBAPIError as error:
        # SQLAlchemy wraps its adapter's error, which wraps the driver's: the driver's tells most.
        inner = error.orig.__cause__ if error.orig is not None else None
        raise (inner or error) from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, plan: Plan) -> list[str]:
    lock_ms = round(plan.timeout_s * 1_000)
    connection.execute(text(f"SET LOCAL lock_timeout = {lock_ms}"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{_DDL_LOCK_TIMEOUT}'"))
    _prepare(connection, plan)
    scripts = _scripts(connection, plan.revisions)
    revision_map = RevisionMap(lambda: scripts)
    applied: list[str] = []

    def missing(heads: tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
        _assert_known(heads, plan)
        steps = [it for it in scripts if not heads or it.revision > heads[0]]
        applied.extend(it.revision for it in steps)
        return [MigrationStep.upgrade_from_script(revision_map, it) for it in steps]

    context = MigrationContext.configure(
        connection, opts={"version_table_schema": plan.schema, "fn": missing}
    )
    with context.begin_transaction():
        context.run_migrations()
    _run(
        connection,
        f"REVOKE INSERT, UPDATE, DELETE ON {plan.schema}.alembic_version FROM {plan.role}",
    )
    return applied


def _assert_known(heads: tuple[str, ...], plan: Plan) -> None:
    known = {it.name for it in plan.revisions}
    unknown = [head for head in heads if head not in known]
    if unknown:
        raise Precondition(
            f"Schema {plan.schema} is at {unknown[0]}, which this release does not know.",
            reason="DATABASE_TOO_NEW",
            remedy="Start the newer release; migrations only go forward.",
        )


def _prepare(connection: Connection, plan: Plan) -> None:
    """The schema, and a role that reads and writes in it and nowhere else."""
    schema, role = plan.schema, plan.role
    _run(
        connection,
        f"""
        CREATE SCHEMA IF NOT EXISTS {schema};
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                CREATE ROLE {role} {"LOGIN" if plan.login else "NOLOGIN"};
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles are shared: another database's migration was first
        END $$;
        GRANT USAGE ON SCHEMA {schema} TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
            GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role};
        SET LOCAL search_path TO {schema};
        """,
    )


def _scripts(connection: Connection, revisions: Iterable[Revision]) -> list[Script]:
    """Each file as alembic sees a revision: a module with ``revision`` and ``upgrade``."""
    scripts: list[Script] = []
    before: str | None = None
    for revision in revisions:
        module = ModuleType(f"revision_{revision.name}")
        module.__doc__ = revision.name
        module.__dict__.update(
            revision=revision.name, down_revision=before, upgrade=_body(connection, revision.sql)
        )
        scripts.append(Script(module, revision.name, f"{revision.name}.sql"))
        before = revision.name
    return scripts


def _body(connection: Connection, sql: str) -> Any:
    return lambda **_: _run(connection, sql)


def _run(connection: Connection, sql: str) -> None:
    """Run a script of many statements: the driver's simple protocol, which SQLAlchemy hides."""
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.run_async(lambda driver: driver.execute(sql))
