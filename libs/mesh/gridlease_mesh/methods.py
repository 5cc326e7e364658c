"""What a stub holds for each of its methods: one class for each arity."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from gridlease_mesh.calls import MeshCall, UnaryCall
from gridlease_mesh.intercept import (
    InterceptedStreamStream,
    InterceptedStreamUnary,
    InterceptedUnary,
    InterceptedUnaryStream,
)
from gridlease_mesh.streams import Requests, StreamStreamCall, StreamUnaryCall, UnaryStreamCall

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
C = TypeVar("C", bound=MeshCall)

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Starter(Protocol):
    """The channel, as far as a method knows it."""

    interceptors: tuple[grpc.aio.ClientInterceptor, ...]

    def timeout_of(self, timeout_s: float | None) -> float:
        """The timeout of a call, in seconds."""
        ...

    def start(
        self,
        kind: type[C],
        method: str,
        details: grpc.aio.ClientCallDetails,
        payload: bytes | None,
        deserialize: Deserializer | None,
        compression: grpc.Compression | None = None,
    ) -> C:
        """Make a call."""
        ...


def check_interceptors(interceptors: Sequence[Any]) -> None:
    """See that each intercepts something.

    Raises:
        ValueError: one does not.
    """
    for each in interceptors:
        if not any(hasattr(each, f"intercept_{kind}") for kind in _KINDS):
            raise ValueError(f"{each!r} intercepts no kind of call")


class _Method:
    """A method bound to a channel."""

    _kind = ""

    def __init__(
        self,
        channel: Starter,
        method: str | bytes,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        self._channel = channel
        self._method = method.decode() if isinstance(method, bytes) else method
        self._serialize = serialize
        self._deserialize = deserialize
        name = f"intercept_{self._kind}"
        self._chain = [each for each in channel.interceptors if hasattr(each, name)]

    def _details(
        self, timeout: float | None, metadata: Any, credentials: Any, wait_for_ready: bool | None
    ) -> grpc.aio.ClientCallDetails:
        if self._chain:  # interceptors add to it
            metadata = grpc.aio.Metadata(*(metadata or ()))
        return grpc.aio.ClientCallDetails(
            self._method, self._channel.timeout_of(timeout), metadata, credentials, wait_for_ready
        )

    def _begin(
        self,
        kind: type[C],
        details: grpc.aio.ClientCallDetails,
        payload: bytes | None,
        compression: grpc.Compression | None,
    ) -> C:
        method = details.method
        name = method.decode() if isinstance(method, bytes) else method
        return self._channel.start(kind, name, details, payload, self._deserialize, compression)

    def _bytes(self, request: Any) -> bytes:
        if self._serialize is not None:
            return self._serialize(request)
        payload: bytes = request
        return payload


class UnaryUnary(_Method, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """What a stub holds for a unary method."""

    _kind = "unary_unary"

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)

        def begin(details: grpc.aio.ClientCallDetails, request: Any) -> UnaryCall:
            return self._begin(UnaryCall, details, self._bytes(request), compression)

        if self._chain:
            return InterceptedUnary(self._chain, begin, details, request)
        return begin(details, request)


class UnaryStream(_Method, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """What a stub holds for a server-streaming method."""

    _kind = "unary_stream"

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryStreamCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)

        def begin(details: grpc.aio.ClientCallDetails, request: Any) -> UnaryStreamCall:
            return self._begin(UnaryStreamCall, details, self._bytes(request), compression)

        if self._chain:
            return InterceptedUnaryStream(self._chain, begin, details, request)
        return begin(details, request)


class StreamUnary(_Method, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """What a stub holds for a client-streaming method."""

    _kind = "stream_unary"

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.StreamUnaryCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)

        def begin(details: grpc.aio.ClientCallDetails, requests: Requests) -> StreamUnaryCall:
            call = self._begin(StreamUnaryCall, details, None, compression)
            call.start_writing(requests, self._serialize)
            return call

        if self._chain:
            return InterceptedStreamUnary(self._chain, begin, details, request_iterator)
        return begin(details, request_iterator)


class StreamStream(_Method, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """What a stub holds for a method that streams both ways."""

    _kind = "stream_stream"

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.StreamStreamCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)

        def begin(details: grpc.aio.ClientCallDetails, requests: Requests) -> StreamStreamCall:
            call = self._begin(StreamStreamCall, details, None, compression)
            call.start_writing(requests, self._serialize)
            return call

        if self._chain:
            return InterceptedStreamStream(self._chain, begin, details, request_iterator)
        return begin(details, request_iterator)
