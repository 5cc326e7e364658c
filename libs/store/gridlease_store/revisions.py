"""Alembic's part of migrating: from numbered SQL files to the script of each missing revision.

Alembic works in its offline mode: it orders the revisions and writes the statements that keep the
version table; what runs them is asyncpg, as everywhere else (SQLAlchemy's own way to asyncpg
prepares every statement, which a script of many does not survive).
"""

from __future__ import annotations

import importlib.resources
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType

from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script.base import Script
from alembic.script.revision import RevisionMap
from gridlease_kernel.faults import Precondition

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Revision:
    """One file: its id (the name without ``.sql``) and its SQL."""

    name: str
    sql: str


def read_revisions(source: str | Path) -> Iterator[Revision]:
    """The numbered SQL files of a package's ``migrations`` folder, or of a folder, in order.

    Raises:
        Precondition: MIGRATION_FILES for a misnamed file or a gap in the numbers.
    """
    root: Traversable
    root = source if isinstance(source, Path) else importlib.resources.files(source) / "migrations"
    named = (it for it in root.iterdir() if it.name.endswith(".sql"))
    for number, file in enumerate(sorted(named, key=lambda it: it.name), start=1):
        found = _FILE.fullmatch(file.name)
        if found is None or int(found.group(1)) != number:
            raise Precondition(
                f"{file.name} is not number {number:04d} of {source}.",
                reason="MIGRATION_FILES",
                remedy="Name the files 0001_name.sql, 0002_name.sql, … without a gap.",
            )
        yield Revision(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))


def scripts(revisions: Sequence[Revision], schema: str, version: str | None) -> list[Revision]:
    """What to run, in order, to bring ``schema`` from ``version`` (None: empty) to the newest.

    Raises:
        Precondition: DATABASE_TOO_NEW where ``version`` is none of the revisions.
    """
    names = [it.name for it in revisions]
    if version is not None and version not in names:
        raise Precondition(
            f"Schema {schema} is at {version}, which this release does not know.",
            reason="DATABASE_TOO_NEW",
            remedy="Start the newer release; migrations only go forward.",
        )
    done = 0 if version is None else names.index(version) + 1
    known = _as_alembic(revisions)
    return [
        Revision(names[at], _script(known, names[at], schema, names[at - 1] if at else None))
        for at in range(done, len(names))
    ]


def _as_alembic(revisions: Sequence[Revision]) -> RevisionMap:
    """Each file as alembic sees a revision: a module with ``revision`` and ``upgrade``."""
    found: list[Script] = []
    for revision in revisions:
        module = ModuleType(revision.name, revision.name)
        before = found[-1].revision if found else None
        module.__dict__.update(
            revision=revision.name, down_revision=before, upgrade=_body(revision.sql)
        )
        found.append(Script(module, revision.name, f"{revision.name}.sql"))
    return RevisionMap(lambda: found)


def _body(sql: str) -> Callable[[MigrationContext], None]:
    def upgrade(context: MigrationContext) -> None:
        # The line break ends a comment on the last line.
        context.impl.static_output(f"{sql}\n;")

    return upgrade


def _script(known: RevisionMap, name: str, schema: str, before: str | None) -> str:
    """One revision's SQL with the statements that record it in the version table."""

    def step(_heads: object, _context: object) -> list[RevisionStep]:
        script = known.get_revision(name)
        assert isinstance(script, Script), name
        return [MigrationStep.upgrade_from_script(known, script)]

    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={
            "as_sql": True,
            "fn": step,
            "output_buffer": written,
            "starting_rev": before,
            "version_table_schema": schema,
        },
    )
    context.run_migrations(context=context)
    return written.getvalue()
