"""Expected trouble, as one tree; a bug is an assert, never one of these.

    Fault
    ├── Invalid            INVALID_ARGUMENT     the request can never succeed as it stands
    ├── Missing            NOT_FOUND            no such thing, or not yours: the same answer
    ├── Exists             ALREADY_EXISTS       a create met its own name
    ├── Conflict           ABORTED              somebody else was first; read again and retry
    ├── Precondition       FAILED_PRECONDITION  the state does not allow it now
    ├── Exhausted          RESOURCE_EXHAUSTED   a limit of the caller is reached
    │   ├── OverQuota
    │   └── TooLarge
    ├── Unauthenticated    UNAUTHENTICATED      who are you?
    ├── Forbidden          PERMISSION_DENIED    known, and not allowed
    ├── Late               DEADLINE_EXCEEDED    the caller's time was up
    └── Unreachable        UNAVAILABLE          try again soon

Every fault carries a stable ``reason`` (UPPER_SNAKE), the ``field`` of the request at fault (a
path such as ``spec.resources.gpu``, or "" where none is), and a ``remedy``: one sentence that
says what to do. ``gridlease_mesh.status`` maps the tree to ``google.rpc.Status`` once, both ways.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar


class Code(enum.IntEnum):
    """The canonical gRPC status codes a fault can take. Source: google.rpc.Code."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Fault(Exception):  # noqa: N818 - the whole tree speaks of faults, not errors
    """The root. Raise a leaf; catch this at an edge."""

    code: ClassVar[Code]

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        field: str = "",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        assert reason.isupper(), reason
        self.message = message
        self.reason = reason
        self.field = field
        self.remedy = remedy
        self.metadata = dict(metadata or {})
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" {self.remedy}" if self.remedy else "")


class Invalid(Fault):
    code = Code.INVALID_ARGUMENT


class Missing(Fault):
    code = Code.NOT_FOUND


class Exists(Fault):
    code = Code.ALREADY_EXISTS


class Conflict(Fault):
    code = Code.ABORTED


class Precondition(Fault):
    code = Code.FAILED_PRECONDITION


class Exhausted(Fault):
    code = Code.RESOURCE_EXHAUSTED


class OverQuota(Exhausted):
    pass


class TooLarge(Exhausted):
    pass


class Unauthenticated(Fault):
    code = Code.UNAUTHENTICATED


class Forbidden(Fault):
    code = Code.PERMISSION_DENIED


class Late(Fault):
    code = Code.DEADLINE_EXCEEDED


class Unreachable(Fault):
    code = Code.UNAVAILABLE
