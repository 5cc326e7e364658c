"""Expected trouble over the socket: a fault arrives as the fault that was raised."""

from __future__ import annotations

from typing import Any

from gridlease_kernel import faults
from gridlease_kernel.faults import Fault

_KINDS: dict[str, type[Fault]] = {
    name: kind
    for name, kind in vars(faults).items()
    if isinstance(kind, type) and issubclass(kind, Fault)
}


def told(trouble: Exception) -> list[Any]:
    """What the other end is told of an exception."""
    if isinstance(trouble, Fault):
        row = [trouble.message, trouble.reason, trouble.field, trouble.remedy]
        return ["fault", type(trouble).__name__, *row, trouble.metadata, trouble.retry_after_ms]
    if isinstance(trouble, OSError):
        return ["os", trouble.errno or 0, trouble.strerror or str(trouble)]
    return ["bug", f"{type(trouble).__name__}: {trouble}"]


def heard(row: list[Any]) -> Exception:
    """The exception that was told."""
    match row:
        case ["fault", str(kind), message, reason, field, remedy, metadata, retry_after_ms]:
            return _KINDS[kind](
                message,
                reason=reason,
                field=field,
                remedy=remedy,
                metadata=metadata,
                retry_after_ms=retry_after_ms,
            )
        case ["os", int(number), str(text)]:
            return OSError(number, text)
        case _:
            return AssertionError(f"the executor failed: {row[1:]}")
