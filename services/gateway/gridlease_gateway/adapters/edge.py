"""The gRPC front end: the method table as generic handlers of ``grpc.aio``."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import Message
from gridlease_kernel.faults import Fault, Precondition
from gridlease_mesh import status, trace

from gridlease_gateway.calls import Opening
from gridlease_gateway.door import Door, RuleBroken
from gridlease_gateway.methods import Method
from gridlease_gateway.settings import Settings

_LOG = logging.getLogger(__name__)
MAX_MESSAGE_BYTES = 4 << 20
# Answer without a key: whether the door is open, and what it offers.
_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Context = Any  # grpc.aio.ServicerContext, whose own types differ between releases


class OnlyTheTable(grpc.aio.ServerInterceptor):
    """Serves what the table names, health and reflection: whatever else was added stays shut."""

    def __init__(self, paths: frozenset[str]) -> None:
        self._paths = paths

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        path = handler_call_details.method
        if path in self._paths or path.startswith(_OPEN):
            return await continuation(handler_call_details)
        return None  # UNIMPLEMENTED


def handlers(door: Door, methods: Mapping[str, Method]) -> list[grpc.GenericRpcHandler]:
    """One generic handler a service, each method through the door."""
    services: dict[str, dict[str, Any]] = {}
    for method in methods.values():
        service, _, name = method.path.strip("/").partition("/")
        both_ways = method.client_streaming and method.server_streaming
        made = _session_handler(door, method) if both_ways else _handler(door, method)
        services.setdefault(service, {})[name] = made
    return [grpc.method_handlers_generic_handler(name, its) for name, its in services.items()]


def listen(server: grpc.aio.Server, settings: Settings) -> int:
    """Bind the port; the port that is bound.

    Raises:
        Precondition: PORT_TAKEN or TLS_FILES.
        Invalid: the address is malformed.
    """
    host, port = settings.address()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if settings.gateway_tls_cert or settings.gateway_tls_key:
            return server.add_secure_port(address, _credentials(settings))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise Precondition(
            f"Cannot listen on {address}: the port is taken or the address is not this host's.",
            reason="PORT_TAKEN",
            field="GRIDLEASE_GATEWAY_LISTEN",
            remedy="Stop what listens there, or set another port.",
        ) from error


def options(settings: Settings) -> Sequence[tuple[str, int]]:
    """The limits of connections and messages."""
    return (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.max_concurrent_streams", 512),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.so_reuseport", int(settings.gateway_reuse_port)),
    )


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    files = (settings.gateway_tls_key, settings.gateway_tls_cert)
    try:
        # One without the other is a mistake, never a door without TLS.
        pair = [(it or Path("(not set)")).read_bytes() for it in files]
    except OSError as error:
        raise Precondition(
            f"The TLS files cannot be read: {error}",
            reason="TLS_FILES",
            field="GRIDLEASE_GATEWAY_TLS_CERT",
            remedy="Name a PEM certificate and its key, readable by this user.",
        ) from error
    return grpc.ssl_server_credentials([(pair[0], pair[1])])


def _handler(door: Door, method: Method) -> Any:
    # Bytes go in: the door decodes, so that malformed ones get an answer of ours.
    async def unary(payload: bytes, context: Context) -> Message:
        began = time.monotonic()
        try:
            answer = await door.unary(method, payload, _opening(method, context))
        except Exception as error:  # noqa: BLE001 - the edge: everything is mapped
            await _refuse(error, context, method, began)
        _told(method, began, "OK")
        return answer

    async def stream(payload: bytes, context: Context) -> AsyncIterator[Message]:
        began = time.monotonic()
        try:
            async for answer in door.stream(method, payload, _opening(method, context)):
                yield answer
        except Exception as error:  # noqa: BLE001 - the edge: everything is mapped
            await _refuse(error, context, method, began)
        _told(method, began, "OK")

    async def upload(payloads: AsyncIterator[bytes], context: Context) -> Message:
        began = time.monotonic()
        try:
            answer = await door.upload(method, payloads, _opening(method, context))
        except Exception as error:  # noqa: BLE001 - the edge: everything is mapped
            await _refuse(error, context, method, began)
        _told(method, began, "OK")
        return answer

    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(upload, None, _encode)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, None, _encode)
    return grpc.unary_unary_rpc_method_handler(unary, None, _encode)


def _session_handler(door: Door, method: Method) -> Any:
    async def session(payloads: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
        began = time.monotonic()
        try:
            async with contextlib.aclosing(
                door.session(method, payloads, _opening(method, context))
            ) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:  # noqa: BLE001 - the edge: everything is mapped
            await _refuse(error, context, method, began)
        _told(method, began, "OK")

    return grpc.stream_stream_rpc_method_handler(session, None, _encode)


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def _opening(method: Method, context: Context) -> Opening:
    pairs = context.invocation_metadata() or ()
    if trace.current() is None:  # else the observer's span is this call's
        trace.enter(trace.extract(pairs))
    metadata = {key: value for key, value in pairs if isinstance(value, str)}
    return Opening(method.name, metadata, context.peer() or "", context.time_remaining())


async def _refuse(error: Exception, context: Context, method: Method, began: float) -> NoReturn:
    if isinstance(error, Fault):
        _told(method, began, error.reason)
        rich = error.rich if isinstance(error, RuleBroken) else status.status_from_fault(error)
        await status.abort_with(context, rich)
    if isinstance(error, grpc.aio.AbortError):
        raise error
    _LOG.error("a method failed: %s", method.name, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "Internal error; see the gateway's log.")
    raise AssertionError  # abort raises


def _told(method: Method, began: float, outcome: str) -> None:
    took_ms = round((time.monotonic() - began) * 1_000, 1)
    level = logging.INFO if method.rule.mutating or outcome != "OK" else logging.DEBUG
    _LOG.log(level, "%s %s", method.name, outcome, extra={"took_ms": took_ms})
