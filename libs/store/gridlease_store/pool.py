"""Pools and transactions: each statement has a deadline, each lost commit is said to be unknown."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import asyncpg
from asyncpg.transaction import Transaction
from gridlease_kernel.faults import Conflict, Fault

from .connect import connect, with_jsonb
from .faults import fault_of, outcome_unknown

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

T = TypeVar("T")
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ACQUIRE_S = 10.0
_ROLLBACK_S = 2.0
_IDLE_IN_TRANSACTION = "60s"
_FIRST_PAUSE_S = 0.005
_LAST_PAUSE_S = 0.2


async def connect_pool(
    dsn: str,
    *,
    schema: str,
    role: str | None = None,
    min_size: int = 1,
    max_size: int = 8,
    command_timeout_s: float = 10.0,
    wait_s: float = 30.0,
) -> Pool:
    """A pool whose connections see one room's schema and speak jsonb.

    Args:
        dsn: The database's address.
        schema: The room's schema: the whole search path.
        role: Work as this role, limited to the room (see ``migrate``); None keeps the DSN's user.
        min_size: Connections kept open.
        max_size: Connections at most.
        command_timeout_s: The longest a statement may take, in seconds.
        wait_s: How long to wait for a database that is starting, in seconds.

    Raises:
        Precondition: DATABASE_REFUSED.
        Unreachable: DATABASE_UNREACHABLE after ``wait_s``.
    """
    assert _NAME.fullmatch(schema), schema
    settings = {
        "application_name": f"gridlease-{schema}",
        "search_path": schema,
        "timezone": "UTC",
        "statement_timeout": str(round(command_timeout_s * 1_000)),
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION,
    }
    if role is not None:
        settings["role"] = role
    # A first connection waits out a restart and says plainly what is wrong; the pool does neither.
    probe = await connect(dsn, wait_s=wait_s, settings=settings)
    await probe.close()
    pool: Pool = await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        command_timeout=command_timeout_s,
        timeout=command_timeout_s,
        server_settings=settings,
        init=with_jsonb,
    )
    return pool


@contextlib.asynccontextmanager
async def transaction(
    pool: Pool, *, isolation: Isolation = "read_committed", readonly: bool = False
) -> AsyncIterator[Connection]:
    """One transaction on one connection: committed at the end of the block, else undone.

    A constraint's error (``asyncpg.IntegrityConstraintViolationError``) passes through as it is:
    the caller knows what it means.

    Raises:
        Conflict: DATABASE_CONFLICT: another was first; nothing was written.
        Unreachable: DATABASE_UNREACHABLE: nothing was written; or COMMIT_OUTCOME_UNKNOWN: it may
            or may not have been, and the idempotency key decides.
    """
    connection = await _acquire(pool)
    block = connection.transaction(isolation=isolation, readonly=readonly)
    committing = False
    try:
        await block.start()
        yield connection
        committing = True
        await block.commit()
    except BaseException as error:
        decided = isinstance(error, asyncpg.PostgresError) and fault_of(error) is None
        if committing and not decided and not isinstance(error, asyncpg.SerializationError):
            _drop(connection)
            if isinstance(error, Exception):
                raise outcome_unknown(error) from error
            raise
        if not committing:
            await _undo(connection, block, error)
        known = fault_of(error)
        if known is not None:
            raise known from error
        raise
    finally:
        await _release(pool, connection)


async def retrying(
    pool: Pool,
    work: Callable[[Connection], Awaitable[T]],
    *,
    isolation: Isolation = "serializable",
    attempts: int = 8,
) -> T:
    """Run ``work`` in a transaction, again after a conflict, at most ``attempts`` times.

    ``work`` must have no effect but through its connection: it may run several times.

    Raises:
        Conflict: DATABASE_CONFLICT when every attempt met another.
        Unreachable: as ``transaction``.
    """
    pause_s = _FIRST_PAUSE_S
    for left in range(attempts - 1, -1, -1):
        try:
            async with transaction(pool, isolation=isolation) as connection:
                return await work(connection)
        except Conflict as fault:
            if fault.reason != "DATABASE_CONFLICT" or not left:
                raise
        await asyncio.sleep(pause_s * (1 + secrets.randbelow(100) / 100))
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _acquire(pool: Pool) -> Connection:
    try:
        return await pool.acquire(timeout=_ACQUIRE_S)
    except Exception as error:
        known = fault_of(error)
        if known is None:
            raise
        raise known from error


async def _undo(connection: Connection, block: Transaction, error: BaseException) -> None:
    """Roll back where the connection is sound; else drop it, which rolls back as well."""
    sound = isinstance(error, (Fault, asyncpg.PostgresError)) or (
        isinstance(error, Exception) and fault_of(error) is None
    )
    if not sound:
        _drop(connection)
        return
    try:
        async with asyncio.timeout(_ROLLBACK_S):
            await block.rollback()
    except Exception:  # noqa: BLE001 - whatever it is, the connection is of no more use
        _drop(connection)


async def _release(pool: Pool, connection: Connection) -> None:
    try:
        await pool.release(connection, timeout=_ROLLBACK_S)
    except Exception:  # noqa: BLE001 - a connection that cannot be given back is dropped
        _drop(connection)


def _drop(connection: Connection) -> None:
    """Close at once; the server undoes what was open. One that broke has left the pool already."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()
