"""The door's tables."""

from __future__ import annotations

from typing import Any

import asyncpg
from gridlease_store.pool import Pool, transaction

from gridlease_gateway.domain.keys import KeyRecord, Role
from gridlease_gateway.ports import AuditRow, NewKey

_KEY = """
    SELECT k.id, k.secret_sha256, k.role, k.project, p.tenant, k.display_name,
           k.create_time, k.expire_time, k.revoke_time
    FROM api_key k LEFT JOIN project p ON p.id = k.project
"""
_ADD_KEY = """
    INSERT INTO api_key (id, secret_sha256, role, project, display_name, expire_time)
    VALUES ($1, $2, $3, $4, $5, $6)
"""
_KEYS_MAX = 1_000


def _record(row: asyncpg.Record) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        secret_sha256=bytes(row["secret_sha256"]),
        role=Role(row["role"]),
        tenant=row["tenant"] or "",
        project=row["project"] or "",
        display_name=row["display_name"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
    )


def _values(key: NewKey) -> tuple[Any, ...]:
    return (
        key.id,
        key.secret_sha256,
        key.role,
        key.project,
        key.display_name,
        key.expire_time,
    )


class PostgresAccess:
    """``ports.AccessStore`` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def key(self, key_id: str) -> KeyRecord | None:
        async with transaction(self._pool, readonly=True) as connection:
            row = await connection.fetchrow(f"{_KEY} WHERE k.id = $1", key_id)
        return _record(row) if row else None

    async def keys(self, project: str | None) -> list[KeyRecord]:
        sql = f"{_KEY} WHERE $1::text IS NULL OR k.project = $1 ORDER BY k.create_time DESC, k.id"
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(f"{sql} LIMIT {_KEYS_MAX}", project)
        return [_record(row) for row in rows]

    async def add_key(self, key: NewKey) -> KeyRecord:
        async with transaction(self._pool) as connection:
            await connection.execute(_ADD_KEY, *_values(key))
            row = await connection.fetchrow(f"{_KEY} WHERE k.id = $1", key.id)
        assert row is not None
        return _record(row)

    async def revoke(self, key_id: str, project: str | None) -> KeyRecord | None:
        async with transaction(self._pool) as connection:
            await connection.execute(
                "UPDATE api_key SET revoke_time = coalesce(revoke_time, now())"
                " WHERE id = $1 AND ($2::text IS NULL OR project = $2)",
                key_id,
                project,
            )
            row = await connection.fetchrow(
                f"{_KEY} WHERE k.id = $1 AND ($2::text IS NULL OR k.project = $2)", key_id, project
            )
        return _record(row) if row else None

    async def add_tenant(self, tenant: str, project: str) -> bool:
        try:
            async with transaction(self._pool) as connection:
                await connection.execute("INSERT INTO tenant (id) VALUES ($1)", tenant)
                await connection.execute(
                    "INSERT INTO project (id, tenant) VALUES ($1, $2)", project, tenant
                )
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def has_tenant(self, tenant: str) -> bool:
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetchval("SELECT true FROM tenant WHERE id = $1", tenant)
        return bool(found)

    async def tenant_of(self, project: str) -> str | None:
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetchval("SELECT tenant FROM project WHERE id = $1", project)
        return None if found is None else str(found)


class PostgresAudit:
    """``ports.AuditLog`` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, row: AuditRow) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(
                "INSERT INTO audit (method, key_id, role, tenant, project, resource, outcome,"
                " peer, trace_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                row.method,
                row.key_id,
                row.role,
                row.tenant,
                row.project,
                row.resource,
                row.outcome,
                row.peer,
                row.trace_id,
            )


class PostgresBundles:
    """``ports.BundleIndex`` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, project: str, digest: str, size_bytes: int) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(
                "INSERT INTO bundle (digest, size_bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                digest,
                size_bytes,
            )
            await connection.execute(
                "INSERT INTO bundle_owner (project, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                project,
                digest,
            )

    async def owns(self, project: str, digest: str) -> bool:
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetchval(
                "SELECT true FROM bundle_owner WHERE project = $1 AND digest = $2", project, digest
            )
        return bool(found)


class PostgresFirstStart:
    """``ports.FirstStartStore`` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, tenant: str, project: str, keys: list[NewKey]) -> bool:
        async with transaction(self._pool) as connection:
            mark = await connection.fetchval(
                "INSERT INTO first_start DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING true"
            )
            if not mark:
                return False
            await connection.execute("INSERT INTO tenant (id) VALUES ($1)", tenant)
            await connection.execute(
                "INSERT INTO project (id, tenant) VALUES ($1, $2)", project, tenant
            )
            await connection.executemany(_ADD_KEY, [_values(key) for key in keys])
        return True

    async def credit_due(self) -> bool:
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetchval(
                "SELECT true FROM first_start WHERE credit_time IS NULL"
            )
        return bool(found)

    async def credit_done(self) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(
                "UPDATE first_start SET credit_time = now() WHERE credit_time IS NULL"
            )
