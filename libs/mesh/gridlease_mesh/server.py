"""A ``grpc.aio.Server`` over the mesh: generated servicers are added to it unchanged."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from gridlease_mesh import flow, frames, handlers, presence, subjects, trace
from gridlease_mesh.calls import KEEPALIVE_MISSES
from gridlease_mesh.channel import DEFAULT_TIMEOUT_S, KEEPALIVE_S
from gridlease_mesh.context import MeshContext, Metadatum, Opening
from gridlease_mesh.deadletters import (
    FOREIGN_REPLY,
    MALFORMED,
    NO_REPLY,
    UNKNOWN_CALL,
)
from gridlease_mesh.frames import Headers, Holding, Status
from gridlease_mesh.micro import Responder, Service
from gridlease_mesh.wire import Delivery, Listener, Unsubscribe, Wire, WireDown

_LOG = logging.getLogger(__name__)
DEFAULT_MAX_CONCURRENT = 1024
DEFAULT_MAX_PER_NODE = 64
_KNOWN_DOORS = 4096


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
        compression: grpc.Compression | None = None,
        migration_thread_pool: concurrent.futures.Executor | None = None,
    ) -> None:
        """Nothing is heard before ``start``.

        Args:
            queue: instances that share the name share the calls.
            node_id: serve as this node's own services, instead of any instance's.
            up: full names of the services that nodes may call too.
            compression: of answers, unless the servicer says otherwise.
            migration_thread_pool: where plain functions run; default: the loop's own threads.
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
        self._compression = compression
        self._pool = migration_thread_pool
        self.dead_letters = wire.dead_letters
        self.instance = secrets.token_hex(8)
        self._service = Service(queue or "node", self.instance, self.dead_letters)
        self._responder: Responder | None = None
        self._methods: dict[str, Any] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._services: set[str] = set()
        self._calls: dict[str, MeshContext] = {}  # by the reply subject
        self._accepted: dict[str, MeshContext] = {}  # by our own subject
        self._counter = 0
        self._known_doors: dict[str, tuple[str, str, str]] = {}
        self._doors: list[Unsubscribe] = []
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
            self._generic.append(handler)

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
            one = subjects.one_root(self._prefix, self.instance)
            self._listen(one, self._services, queue="")
        if self._up:
            self._listen(subjects.up_root(self._prefix, "*"), self._up)
        if not self._node_id:
            self._announce()
        self._beat_timer = asyncio.get_running_loop().call_later(self._keepalive_s, self._beat)
        await self._wire.flush()

    async def stop(self, grace: float | None) -> None:
        self._stopping = True  # what is on its way to us is refused, not lost
        doors, self._doors = self._doors, []
        for unsubscribe in doors:
            unsubscribe()
        if self._responder is not None:
            self._responder.close()
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

    def _listen(self, root: str, services: Collection[str], *, queue: str | None = None) -> None:
        """Hear a root; ``stop`` closes the doors before the rest."""
        listen, group = self._wire.subscribe, self._queue if queue is None else queue
        for service in sorted(services):
            self._doors.append(listen(f"{root}.{service}.*", self._on_open, queue=group))
            self._unsubscribes.append(listen(subjects.who(root, service), self._on_who))
        self._unsubscribes.append(listen(f"{root}._call.{self.instance}.*", self._on_frame))
        self._unsubscribes.append(listen(f"{root}._cancel", self._on_cancel))

    def _announce(self) -> None:
        """Answer $SRV.PING, INFO and STATS."""
        root = subjects.any_root(self._prefix)
        for method, handler in sorted(self._methods.items()):
            self._service.add(method, handler, subjects.method_subject(root, method), self._queue)
        self._responder = Responder(self._wire, self._service)

    def _split(self, subject: str) -> tuple[str, str, str]:
        """The root, the calling node (or none), and what follows the root."""
        rest = subject[len(self._prefix) + 1 :]
        if rest.startswith("any."):
            return f"{self._prefix}.any", "", rest[4:]
        kind, token, tail = rest.split(".", 2)
        return f"{self._prefix}.{kind}.{token}", token if kind == "up" else "", tail

    def _door(self, subject: str) -> tuple[str, str, str]:
        """The root, the calling node (or none) and the method that an opening's subject names."""
        door = self._known_doors.get(subject)
        if door is None:
            root, node, tail = self._split(subject)
            service, _, name = tail.rpartition(".")
            if len(self._known_doors) >= _KNOWN_DOORS:
                self._known_doors.clear()
            door = self._known_doors[subject] = root, node, f"/{service}/{name}"
        return door

    def _on_open(self, delivery: Delivery) -> None:
        root, node, method = self._door(delivery.subject)
        if not self._may_answer(delivery.reply, node):
            return
        try:
            headers = frames.decode_headers(delivery.headers)
            opening = self._opening(method, root, node, delivery.reply, headers)
        except frames.BadFrame as error:
            self.dead_letters.count(MALFORMED)
            self._refuse(delivery.reply, grpc.StatusCode.INTERNAL, str(error))
            return
        if self._stopping:
            self._refuse(delivery.reply, grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            return
        if self._is_full(node):
            message = "too many calls are running; try again soon"
            self._refuse(delivery.reply, grpc.StatusCode.RESOURCE_EXHAUSTED, message)
            return
        payload: bytes | None = delivery.payload
        if not _is_plain(headers):
            encoding = headers.get(frames.ENCODING)
            if encoding is not None:
                payload = self._unpacked(delivery, encoding)
                if payload is None:
                    return
            if headers.get(frames.FRAMED) is not None:
                payload = None
        self._begin(opening, payload)

    def _may_answer(self, reply: str, node: str) -> bool:
        if not reply:
            self.dead_letters.count(NO_REPLY)
            return False
        if node and not reply.startswith(f"{subjects.node_inbox(node)}."):
            # We may publish anywhere and the node may not: never be its deputy.
            self.dead_letters.count(FOREIGN_REPLY)
            _LOG.warning("a node asked for an answer outside its inbox", extra={"node": node})
            return False
        return True

    def _unpacked(self, delivery: Delivery, encoding: str) -> bytes | None:
        code, message = grpc.StatusCode.UNIMPLEMENTED, f"encoding {encoding!r} is not known here"
        if encoding == frames.ZLIB:
            try:
                return flow.unsqueeze(delivery.payload)
            except flow.TooBig as error:
                code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
            except frames.BadFrame as error:
                code, message = grpc.StatusCode.INTERNAL, str(error)
        self._refuse(delivery.reply, code, message)
        return None

    def _is_full(self, node: str) -> bool:
        if len(self._calls) >= self._max_concurrent:
            return True
        return bool(node) and self._of_node[node] >= self._max_per_node

    def _opening(self, method: str, root: str, node: str, reply: str, headers: Headers) -> Opening:
        span_s, credit, takes_zlib = DEFAULT_TIMEOUT_S, None, False
        for key, value in headers.pairs:
            if key == frames.TIMEOUT:
                span_s = frames.decode_timeout(value) / 1e9
            elif key == frames.WINDOW:
                credit = frames.decode_window(value)
            elif key == frames.ACCEPTS:
                takes_zlib = value == frames.ZLIB
        self._counter += 1
        metadata: tuple[Metadatum, ...] = ()
        if not _is_plain(headers):
            metadata = tuple(Metadatum(k, v) for k, v in frames.decode_metadata(headers.pairs))
        own = f"{root}._call.{self.instance}.{self._counter}"
        due = asyncio.get_running_loop().time() + span_s
        return Opening(method, reply, node, metadata, due, credit, own, takes_zlib)

    def _begin(self, opening: Opening, payload: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        framed = payload is None or opening.credits is not None
        context = MeshContext(
            self._wire, opening, framed=framed, payload=payload, compression=self._compression
        )
        self._calls[opening.reply] = context
        self._accepted[opening.own_subject] = context
        if opening.node:
            self._of_node[opening.node] += 1
        try:
            if framed:
                context.accept()
        except WireDown:
            self._forget(context)
            return
        context.timer = loop.call_at(
            opening.deadline, context.fail, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
        )
        context.forget = self._forget
        context.task = loop.create_task(self._serve(context), context=contextvars.Context())

    def _forget(self, context: MeshContext) -> None:
        if context.timer is not None:
            context.timer.cancel()
        opening = context.opening
        self._calls.pop(opening.reply, None)
        self._accepted.pop(opening.own_subject, None)
        if opening.node:
            self._of_node[opening.node] -= 1
            if not self._of_node[opening.node]:
                del self._of_node[opening.node]
        spent_s = asyncio.get_running_loop().time() - context.started_at
        code = context.sent_code
        failed = "" if code == 0 else f"{code}:{context.details()}"
        self._service.count(opening.method, spent_s, failed)

    async def _serve(self, context: MeshContext) -> None:
        context.running = True
        trace.enter_later(context.opening.metadata)
        try:
            details = _Details(context.opening)
            chained = bool(self._interceptors)
            handler = await self._handler(details) if chained else self._look_up(details)
            if handler is None:
                context.set_code(grpc.StatusCode.UNIMPLEMENTED)
                context.set_details(f"Method not found! {context.opening.method}")
                context.finish(None)
                return
            await handlers.run(handler, context, self._pool)
        except grpc.aio.AbortError:
            context.finish(None)
        except asyncio.CancelledError:
            context.fail(grpc.StatusCode.CANCELLED, "cancelled")
            raise
        except WireDown:
            context.cancel()
        except Exception as error:  # noqa: BLE001 - the edge: the caller gets UNKNOWN
            if context.code() is grpc.StatusCode.OK and not context.done():
                _LOG.exception("a servicer failed: %s", context.opening.method)
                context.set_code(grpc.StatusCode.UNKNOWN)
                context.set_details(f"Unexpected {type(error)}: {error}")
            context.finish(None)
        finally:
            self._forget(context)

    async def _handler(self, details: _Details) -> Any:
        async def look_up(given: grpc.HandlerCallDetails) -> Any:
            return self._look_up(given)

        step: Callable[[Any], Any] = look_up
        for interceptor in reversed(self._interceptors):
            step = _bind(interceptor, step)
        return await step(details)

    def _look_up(self, details: grpc.HandlerCallDetails) -> Any:
        found = self._methods.get(details.method)
        for handler in self._generic if found is None else ():
            found = handler.service(details)
            if found is not None:
                break
        return found

    def _refuse(self, reply: str, code: grpc.StatusCode, message: str) -> None:
        block = frames.encode_headers(frames.encode_status(Status(code.value[0], message, ())))
        try:
            self._wire.publish(reply, b"", headers=block)
        except WireDown:
            _LOG.info("a refusal was lost with the connection")

    def _on_frame(self, delivery: Delivery) -> None:
        context = self._accepted.get(delivery.subject)
        if context is None:
            if delivery.subject.endswith(".who"):
                self._on_who(delivery)
            else:
                self.dead_letters.count(UNKNOWN_CALL)
            return
        try:
            headers = frames.decode_headers(delivery.headers)
            if headers.code == frames.NO_RESPONDERS:
                self._caller_gone(context)
                return
            context.on_frame(frames.decode_frame(delivery.payload))
        except flow.Gap as gap:
            context.fail(grpc.StatusCode.DATA_LOSS, f"the broker lost part of the call: {gap}")
        except flow.TooBig as error:
            context.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except frames.BadFrame as error:
            self.dead_letters.count(MALFORMED)
            context.fail(grpc.StatusCode.INTERNAL, str(error))

    def _on_who(self, delivery: Delivery) -> None:
        root, node, _ = self._split(delivery.subject)
        if not self._may_answer(delivery.reply, node):
            return
        instance = f"{root}._call.{self.instance}"
        try:
            presence.answer(self._wire, delivery, instance=instance, has=self._calls)
        except WireDown:
            _LOG.debug("an answer about calls was lost with the connection")

    def _on_cancel(self, delivery: Delivery) -> None:
        context = self._calls.get(delivery.payload.decode("ascii", "replace"))
        _, node, _ = self._split(delivery.subject)
        if context is not None and context.opening.node == node:
            context.cancel()

    def _caller_gone(self, context: MeshContext) -> None:
        """The broker knows nobody at the reply subject: all calls of that channel are orphans."""
        channel = context.opening.reply.rpartition(".")[0] + "."
        for each in list(self._calls.values()):
            if each.opening.reply.startswith(channel):
                each.cancel()

    def _beat(self) -> None:
        """Tell the callers of streams that we live; learn which callers of old calls are dead."""
        loop = asyncio.get_running_loop()
        now, silence_s = loop.time(), KEEPALIVE_MISSES * self._keepalive_s
        asked: set[str] = set()
        for context in list(self._calls.values()):
            if context.framed and now - context.heard_at > silence_s:
                context.fail(grpc.StatusCode.UNAVAILABLE, "the client went silent")
                continue
            channel = context.opening.reply.rpartition(".")[0]
            try:
                if context.framed:
                    context.beat()
                elif now - context.started_at > self._keepalive_s and channel not in asked:
                    asked.add(channel)
                    body = frames.encode_holding(Holding((), ()))
                    own = context.opening.own_subject
                    self._wire.publish(f"{channel}.{presence.NEWS}", body, reply=own)
            except WireDown:
                context.cancel()
        self._beat_timer = loop.call_later(self._keepalive_s, self._beat)


def _is_plain(headers: Headers) -> bool:
    """Whether it says no more than a timeout, as most openings do."""
    pairs = headers.pairs
    return not pairs or (len(pairs) == 1 and pairs[0][0] == frames.TIMEOUT)


def _bind(interceptor: grpc.aio.ServerInterceptor, step: Callable[[Any], Any]) -> Any:
    async def onward(details: Any) -> Any:
        return await interceptor.intercept_service(step, details)

    return onward
