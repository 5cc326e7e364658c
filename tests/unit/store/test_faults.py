"""Which error means what to a caller."""

import asyncpg
import pytest
from gridlease_kernel.faults import Conflict, Unreachable
from gridlease_store.faults import fault_of, outcome_unknown


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (asyncpg.SerializationError("x"), Conflict, "DATABASE_CONFLICT"),
        (asyncpg.DeadlockDetectedError("x"), Conflict, "DATABASE_CONFLICT"),
        (asyncpg.DiskFullError("x"), Unreachable, "DATABASE_DISK_FULL"),
        (asyncpg.AdminShutdownError("x"), Unreachable, "DATABASE_UNREACHABLE"),
        (asyncpg.CannotConnectNowError("x"), Unreachable, "DATABASE_UNREACHABLE"),
        (asyncpg.TooManyConnectionsError("x"), Unreachable, "DATABASE_UNREACHABLE"),
        (asyncpg.InternalClientError("x"), Unreachable, "DATABASE_UNREACHABLE"),
        (ConnectionResetError(), Unreachable, "DATABASE_UNREACHABLE"),
        (TimeoutError(), Unreachable, "DATABASE_UNREACHABLE"),
    ],
)
def test_trouble_is_a_fault(error, kind, reason):
    fault = fault_of(error)
    assert type(fault) is kind
    assert fault.reason == reason
    assert fault.remedy
    assert fault.retry_after_ms


@pytest.mark.parametrize(
    "error", [asyncpg.UniqueViolationError("x"), asyncpg.UndefinedTableError("x"), KeyError("x")]
)
def test_a_bug_or_a_constraint_is_none(error):
    assert fault_of(error) is None


def test_a_lost_commit_says_so():
    assert outcome_unknown(TimeoutError()).reason == "COMMIT_OUTCOME_UNKNOWN"
