"""A ``grpc.aio.Server`` over the mesh: generated servicers are added to it unchanged."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import inspect
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from gridlease_mesh import flow, frames, subjects, trace
from gridlease_mesh.calls import KEEPALIVE_MISSES
from gridlease_mesh.channel import DEFAULT_TIMEOUT_S, KEEPALIVE_S
from gridlease_mesh.context import MeshContext, Metadatum, Opening
from gridlease_mesh.frames import Headers, Status
from gridlease_mesh.wire import Delivery, Listener, Unsubscribe, Wire, WireDown

_LOG = logging.getLogger(__name__)
DEFAULT_MAX_CONCURRENT = 1024
DEFAULT_MAX_PER_NODE = 64


class _Details(grpc.HandlerCallDetails):
    """What an interceptor learns of a call before its handler is chosen."""

    def __init__(self, opening: Opening) -> None:
        self.method = opening.method
        self.invocation_metadata = opening.metadata


class MeshServer(grpc.aio.Server, Listener):
    """Serves the added services under one root, and, where named, to nodes.

    A call beyond ``max_concurrent``, or ``max_per_node`` of one node, is answered
    RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        prefix: str = subjects.DEFAULT_PREFIX,
        queue: str = "",
        node_id: str = "",
        up: Collection[str] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_concurrent: int = DEFAULT_MAX_CONCURRENT,
        max_per_node: int = DEFAULT_MAX_PER_NODE,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """Nothing is heard before ``start``.

        Args:
            queue: instances that share the name share the calls.
            node_id: serve as this node's own services, instead of any instance's.
            up: full names of the services that nodes may call too.
        """
        assert not (node_id and up), "a node serves no other nodes"
        self._wire = wire
        self._prefix = prefix
        self._queue = queue
        self._node_id = node_id
        self._up = frozenset(up)
        self._interceptors = tuple(interceptors)
        self._max_concurrent = max_concurrent
        self._max_per_node = max_per_node
        self._of_node: collections.Counter[str] = collections.Counter()
        self._keepalive_s = keepalive_s
        self._token = secrets.token_hex(8)
        self._methods: dict[str, Any] = {}
        self._services: set[str] = set()
        self._calls: dict[str, MeshContext] = {}  # by the reply subject
        self._accepted: dict[str, MeshContext] = {}  # by our own subject
        self._counter = 0
        self._unsubscribes: list[Unsubscribe] = []
        self._stopped = asyncio.Event()
        self._started = False
        self._stopping = False
        self._beat_timer: asyncio.TimerHandle | None = None

    # grpc.aio.Server

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        for handler in generic_rpc_handlers:
            if not isinstance(handler, grpc.ServiceRpcHandler):
                raise ValueError("the mesh serves named services only")
            self._services.add(handler.service_name())

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self._services.add(service_name)
        for name, handler in method_handlers.items():
            self._methods[f"/{service_name}/{name}"] = handler

    def add_insecure_port(self, address: str) -> NoReturn:
        raise NotImplementedError("the mesh has no ports: it listens on subjects")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        raise NotImplementedError("the mesh has no ports: it listens on subjects")

    async def start(self) -> None:
        """Listen; returns when the broker knows of it.

        Raises:
            WireDown: the broker is away.
        """
        assert not self._started, "a server starts once"
        unknown = self._up - self._services
        assert not unknown, f"not added: {sorted(unknown)}"
        self._started = True
        self._wire.add_listener(self)
        if self._node_id:
            self._listen(subjects.node_root(self._prefix, self._node_id), self._services)
        else:
            self._listen(subjects.any_root(self._prefix), self._services)
        if self._up:
            self._listen(subjects.up_root(self._prefix, "*"), self._up)
        self._beat_timer = asyncio.get_running_loop().call_later(self._keepalive_s, self._beat)
        await self._wire.flush()

    async def stop(self, grace: float | None) -> None:
        self._stopping = True  # what is on its way to us is refused, not lost
        for unsubscribe in self._unsubscribes[: len(self._services) + len(self._up)]:
            unsubscribe()
        with contextlib.suppress(WireDown):
            await self._wire.flush()
        running = [call.task for call in self._calls.values() if call.task is not None]
        if running and grace:
            await asyncio.wait(running, timeout=grace)
        for call in list(self._calls.values()):
            call.fail(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        running = [task for task in running if not task.done()]
        if running:
            await asyncio.wait(running, timeout=5.0)
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._unsubscribes.clear()
        self._wire.remove_listener(self)
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout)
        except TimeoutError:
            return True
        return False

    # Listener

    def disconnected(self) -> None:
        # What a stream sends from here on is lost; its client has ended the call already.
        for call in list(self._calls.values()):
            if call.framed:
                call.cancel()

    # Inside.

    def _listen(self, root: str, services: Collection[str]) -> None:
        """Hear a root: the methods first, so that ``stop`` may close the door before the rest."""
        doors = [
            self._wire.subscribe(f"{root}.{service}.*", self._on_open, queue=self._queue)
            for service in sorted(services)
        ]
        self._unsubscribes[0:0] = doors
        self._unsubscribes.append(
            self._wire.subscribe(f"{root}._call.{self._token}.*", self._on_frame)
        )
        self._unsubscribes.append(self._wire.subscribe(f"{root}._cancel", self._on_cancel))

    def _split(self, subject: str) -> tuple[str, str, str]:
        """The root, the calling node (or none), and what follows the root."""
        rest = subject[len(self._prefix) + 1 :]
        if rest.startswith("any."):
            return f"{self._prefix}.any", "", rest[4:]
        kind, token, tail = rest.split(".", 2)
        return f"{self._prefix}.{kind}.{token}", token if kind == "up" else "", tail

    def _on_open(self, delivery: Delivery) -> None:
        root, node, tail = self._split(delivery.subject)
        if not delivery.reply:
            return
        if node and not delivery.reply.startswith(f"{subjects.node_inbox(node)}."):
            # We may publish anywhere and the node may not: never be its deputy.
            _LOG.warning("a node asked for an answer outside its inbox", extra={"node": node})
            return
        service, _, name = tail.rpartition(".")
        try:
            headers = frames.decode_headers(delivery.headers)
            opening = self._opening(f"/{service}/{name}", root, node, delivery.reply, headers)
        except frames.BadFrame as error:
            self._refuse(delivery.reply, grpc.StatusCode.INTERNAL, str(error))
            return
        if self._stopping:
            self._refuse(delivery.reply, grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            return
        if self._is_full(node):
            message = "too many calls are running; try again soon"
            self._refuse(delivery.reply, grpc.StatusCode.RESOURCE_EXHAUSTED, message)
            return
        self._begin(opening, headers.get(frames.FRAMED) is not None, delivery.payload)

    def _is_full(self, node: str) -> bool:
        if len(self._calls) >= self._max_concurrent:
            return True
        return bool(node) and self._of_node[node] >= self._max_per_node

    def _opening(self, method: str, root: str, node: str, reply: str, headers: Headers) -> Opening:
        loop = asyncio.get_running_loop()
        timeout = headers.get(frames.TIMEOUT)
        span_s = frames.decode_timeout(timeout) / 1e9 if timeout else DEFAULT_TIMEOUT_S
        window = headers.get(frames.WINDOW)
        credit = None
        if window is not None:
            messages, comma, size = window.partition(",")
            if not (comma and messages.isdecimal() and size.isdecimal()):
                raise frames.BadFrame(f"window {window!r} is malformed")
            credit = frames.Grant(int(messages), int(size))
        self._counter += 1
        metadata = tuple(Metadatum(k, v) for k, v in frames.decode_metadata(headers.pairs))
        own = f"{root}._call.{self._token}.{self._counter}"
        return Opening(method, reply, node, metadata, loop.time() + span_s, credit, own)

    def _begin(self, opening: Opening, promoted: bool, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        context = MeshContext(self._wire, opening, framed=opening.credits is not None)
        self._calls[opening.reply] = context
        self._accepted[opening.own_subject] = context
        self._of_node[opening.node] += 1
        if promoted:
            context.request = loop.create_future()
        try:
            if promoted or context.framed:
                context.accept()
        except WireDown:
            self._forget(context, None)
            return
        timer = loop.call_at(
            opening.deadline, context.fail, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
        )
        context.task = loop.create_task(
            self._serve(context, payload), context=contextvars.Context()
        )

        def over(_task: asyncio.Task[None]) -> None:
            self._forget(context, timer)

        context.task.add_done_callback(over)

    def _forget(self, context: MeshContext, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
        self._calls.pop(context.opening.reply, None)
        self._accepted.pop(context.opening.own_subject, None)
        self._of_node[context.opening.node] -= 1
        if not self._of_node[context.opening.node]:
            del self._of_node[context.opening.node]

    async def _serve(self, context: MeshContext, payload: bytes) -> None:
        trace.enter(trace.extract(context.opening.metadata))
        try:
            handler = await self._handler(_Details(context.opening))
            if handler is None or handler.request_streaming:
                context.set_code(grpc.StatusCode.UNIMPLEMENTED)
                context.set_details(f"Method not found! {context.opening.method}")
                context.finish(None)
                return
            if context.request is not None:
                payload = await context.request
            await self._run(handler, context, payload)
        except grpc.aio.AbortError:
            context.finish(None)
        except asyncio.CancelledError:
            context.fail(grpc.StatusCode.CANCELLED, "cancelled")
            raise
        except WireDown:
            context.cancel()
        except Exception as error:  # noqa: BLE001 - the edge: the caller gets UNKNOWN
            if context.code() is grpc.StatusCode.OK:
                _LOG.exception("a servicer failed: %s", context.opening.method)
                context.set_code(grpc.StatusCode.UNKNOWN)
                context.set_details(f"Unexpected {type(error)}: {error}")
            context.finish(None)

    async def _handler(self, details: _Details) -> Any:
        async def look_up(given: grpc.HandlerCallDetails) -> Any:
            return self._methods.get(given.method)

        step: Callable[[Any], Any] = look_up
        for interceptor in reversed(self._interceptors):
            step = _bind(interceptor, step)
        return await step(details)

    async def _run(self, handler: Any, context: MeshContext, payload: bytes) -> None:
        decode = handler.request_deserializer
        request = decode(payload) if decode else payload
        context.serialize = handler.response_serializer
        if handler.response_streaming:
            if context.opening.credits is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the method answers in a stream")
            answers = handler.unary_stream(request, context)
            if hasattr(answers, "__aiter__"):
                async with contextlib.aclosing(answers):  # so that its cleanup runs now
                    async for answer in answers:
                        await context.write(answer)
            elif inspect.isawaitable(answers):
                await answers
            context.finish(None)
            return
        answer = handler.unary_unary(request, context)
        if inspect.isawaitable(answer):
            answer = await answer
        if context.code() is not grpc.StatusCode.OK:
            context.finish(None)
            return
        await context.breathe()
        context.finish(context.serialize(answer) if context.serialize else answer)

    def _refuse(self, reply: str, code: grpc.StatusCode, message: str) -> None:
        block = frames.encode_headers(frames.encode_status(Status(code.value[0], message, ())))
        try:
            self._wire.publish(reply, b"", headers=block)
        except WireDown:
            _LOG.info("a refusal was lost with the connection")

    def _on_frame(self, delivery: Delivery) -> None:
        context = self._accepted.get(delivery.subject)
        if context is None:
            return
        try:
            context.on_frame(frames.decode_frame(delivery.payload))
        except flow.Gap as gap:
            context.fail(grpc.StatusCode.DATA_LOSS, f"the broker lost part of the call: {gap}")
        except flow.TooBig as error:
            context.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except frames.BadFrame as error:
            context.fail(grpc.StatusCode.INTERNAL, str(error))

    def _on_cancel(self, delivery: Delivery) -> None:
        context = self._calls.get(delivery.payload.decode("ascii", "replace"))
        _, node, _ = self._split(delivery.subject)
        if context is not None and context.opening.node == node:
            context.cancel()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        silence_s = KEEPALIVE_MISSES * self._keepalive_s
        for context in list(self._calls.values()):
            if not context.framed:
                continue
            if loop.time() - context.heard_at > silence_s:
                context.fail(grpc.StatusCode.UNAVAILABLE, "the client went silent")
                continue
            try:
                context.beat()
            except WireDown:
                context.cancel()
        self._beat_timer = loop.call_later(self._keepalive_s, self._beat)


def _bind(interceptor: grpc.aio.ServerInterceptor, step: Callable[[Any], Any]) -> Any:
    async def onward(details: Any) -> Any:
        return await interceptor.intercept_service(step, details)

    return onward
