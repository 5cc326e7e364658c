"""The mesh needs gRPC's types and none of its transport: that is left out of the core's memory.

``grpc`` is a package of Python around one large extension, ``grpc._cython.cygrpc``: a third of
what the core would take. The mesh carries calls itself and uses the package's classes alone (stubs,
servicers, status codes, metadata). ``leave_out_transport`` puts the few numbers that those classes
are made of in the extension's place. A channel or a server of gRPC's own cannot be made then:
``adapters.enrolment``, the one place that needs one, asks in a process of its own.
"""

from __future__ import annotations

import enum
import sys
import types
from typing import Any

_NAME = "grpc._cython.cygrpc"


class StatusCode(enum.IntEnum):
    """Source: grpc/status.h; names in lower case, as the extension has them."""

    ok = 0
    cancelled = 1
    unknown = 2
    invalid_argument = 3
    deadline_exceeded = 4
    not_found = 5
    already_exists = 6
    permission_denied = 7
    resource_exhausted = 8
    failed_precondition = 9
    aborted = 10
    out_of_range = 11
    unimplemented = 12
    internal = 13
    unavailable = 14
    data_loss = 15
    unauthenticated = 16


class ConnectivityState(enum.IntEnum):
    """Source: grpc/impl/connectivity_state.h."""

    idle = 0
    connecting = 1
    ready = 2
    transient_failure = 3
    shutdown = 4


class CompressionAlgorithm(enum.IntEnum):
    """Source: grpc/impl/compression_types.h."""

    none = 0
    deflate = 1
    gzip = 2


class BaseError(Exception):
    """As the extension's; all that follow it are."""


class AbortError(BaseError):
    """A servicer gave a call up."""


class InternalError(BaseError):
    """Never raised here."""


class UsageError(BaseError):
    """A call was used as it cannot be."""


class EndOfStream:
    """What a stream's reader is given after the last message."""

    def __bool__(self) -> bool:
        return False


class _Blank(type):
    """A class of which every attribute is another."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _blank(name)


def _blank(name: str) -> Any:
    """Stands where the extension has something that only its transport uses."""

    def refuse(*_given: Any, **_named: Any) -> Any:
        raise RuntimeError(f"gRPC's transport is left out of this process: no {name}")

    return _Blank(name, (), {"__init__": refuse})


class _Extension(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _blank(name)
        setattr(self, name, made)
        return made


def leave_out_transport() -> None:
    """From here on ``import grpc`` has its types alone. Before the first import of it."""
    assert "grpc" not in sys.modules, "grpc is here already"
    extension = _Extension(_NAME)
    own = (StatusCode, ConnectivityState, CompressionAlgorithm)
    for kind in (*own, BaseError, AbortError, InternalError, UsageError):
        setattr(extension, kind.__name__, kind)
    setattr(extension, "_EOF", EndOfStream)  # noqa: B010 - the extension's own name
    setattr(extension, "EOF", EndOfStream())  # noqa: B010
    sys.modules[_NAME] = extension


def is_left_out() -> bool:
    """Whether gRPC has no transport in this process."""
    return isinstance(sys.modules.get(_NAME), _Extension)
