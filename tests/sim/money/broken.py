"""How the simulator says that something does not hold, and how transactions fail."""

from __future__ import annotations

from gridlease_kernel.faults import Conflict, Unreachable


class BrokenError(Exception):
    """A constraint of the schema, or an invariant, does not hold."""


def insist(holds, *what):
    if not holds:
        raise BrokenError(*what)


def crashed():
    return Unreachable("The database is gone.", reason="DATABASE_UNREACHABLE", remedy="Retry.")


def conflict():
    return Conflict("Another was first.", reason="DATABASE_CONFLICT", remedy="Retry.")
