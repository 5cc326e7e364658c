"""What a driver's error means to a caller: one table, used wherever SQL runs."""

from __future__ import annotations

import asyncpg
from gridlease_kernel.faults import Conflict, Fault, Unreachable

_RETRY_MS = 250

# Decided by the server, which undid the transaction: the same work may be tried again.
_CONFLICTS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
# The server went away, is coming up, is full, or took too long; or the driver lost its way
# (a killed backend may surface as InternalClientError).
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
)


def fault_of(error: BaseException) -> Fault | None:
    """The fault that an error stands for; None for one that is the caller's own bug or concern."""
    if isinstance(error, _CONFLICTS):
        return Conflict(
            f"Another transaction was first: {error}",
            reason="DATABASE_CONFLICT",
            remedy="Read again and retry.",
            retry_after_ms=_RETRY_MS,
        )
    if isinstance(error, asyncpg.DiskFullError):
        return Unreachable(
            f"The database's disk is full: {error}",
            reason="DATABASE_DISK_FULL",
            remedy="Free some space on the database's disk.",
            retry_after_ms=_RETRY_MS,
        )
    if isinstance(error, _AWAY):
        return Unreachable(
            f"The database did not answer: {_words(error)}",
            reason="DATABASE_UNREACHABLE",
            remedy="Try again soon.",
            retry_after_ms=_RETRY_MS,
        )
    return None


def outcome_unknown(error: BaseException) -> Unreachable:
    """A commit was asked for and its answer lost: only the idempotency key can tell."""
    return Unreachable(
        f"A commit was not answered: {_words(error)}",
        reason="COMMIT_OUTCOME_UNKNOWN",
        remedy="Send the same request again, with the same request_id.",
        retry_after_ms=_RETRY_MS,
    )


def _words(error: BaseException) -> str:
    """An error's own words, or its kind where it has none (a time-out says nothing)."""
    return str(error) or type(error).__name__
