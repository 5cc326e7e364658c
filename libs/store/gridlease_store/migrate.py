"""Brings one room's schema up to date: numbered SQL files, applied in order, once, forward only.

A room keeps ``migrations/NNNN_name.sql`` files; each is one alembic revision whose body is that
SQL, and the schema holds the version table. All of it, with the schema and the room's role, is
one transaction under an advisory lock, so any number of processes may start at once.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from gridlease_kernel.faults import Fault, Precondition, Unreachable

from . import revisions
from .faults import fault_of

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


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

    Runs in a thread of its own: alembic is synchronous, and a service's loop must not wait.

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
        Precondition: MIGRATION_FAILED, MIGRATION_FILES or DATABASE_TOO_NEW.
        Unreachable: the database did not answer in time.
    """
    role = role or f"gl_{schema}"
    assert _NAME.fullmatch(schema), schema
    assert _NAME.fullmatch(role), role
    plan = revisions.Plan(schema, role, login, timeout_s, tuple(read_revisions(source)))
    try:
        return await asyncio.to_thread(revisions.apply, dsn, plan)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise _as_fault(error, schema) from error


def read_revisions(source: str | Path) -> Iterator[revisions.Revision]:
    """The numbered SQL files of a package's ``migrations`` folder, or of a folder, in order.

    Raises:
        Precondition: MIGRATION_FILES for a misnamed file or a gap in the numbers.
    """
    if isinstance(source, Path):
        root: importlib.resources.abc.Traversable = source
    else:
        root = importlib.resources.files(source) / "migrations"
    files = sorted(
        (it for it in root.iterdir() if it.name.endswith(".sql")), key=lambda it: it.name
    )
    for number, file in enumerate(files, start=1):
        found = _FILE.fullmatch(file.name)
        if found is None or int(found.group(1)) != number:
            raise Precondition(
                f"{file.name} is not number {number:04d} of {source}.",
                reason="MIGRATION_FILES",
                remedy="Name the files 0001_name.sql, 0002_name.sql, … without a gap.",
            )
        yield revisions.Revision(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))


def _as_fault(error: Exception, schema: str) -> Fault:
    known = fault_of(error)
    if isinstance(known, Unreachable):
        return known
    detail = getattr(error, "detail", None)
    return Precondition(
        f"Migrating schema {schema} failed: {error}" + (f" ({detail})" if detail else ""),
        reason="MIGRATION_FAILED",
        remedy="Nothing was changed. Check that the migrating role owns the schema.",
    )
