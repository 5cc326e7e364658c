"""One process's place on the mesh: channels out, servers in, hints and events.

bus = await Bus.connect(url, creds=path, name="scheduler")
stub = BillingServiceStub(bus.channel())
"""

from __future__ import annotations

import concurrent.futures
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Self

import grpc.aio

from gridlease_mesh import micro, natswires, subjects
from gridlease_mesh.channel import DEFAULT_TIMEOUT_S, KEEPALIVE_S, MeshChannel
from gridlease_mesh.server import DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_PER_NODE, MeshServer
from gridlease_mesh.wire import Delivery, Listener, Unsubscribe, Wire

_LOG = logging.getLogger(__name__)

Callback = Callable[[], None]


class _Watcher(Listener):
    """Passes a wire's news on to plain callbacks."""

    def __init__(self) -> None:
        self.on_connected: list[Callback] = []
        self.on_disconnected: list[Callback] = []

    def connected(self) -> None:
        for callback in list(self.on_connected):
            callback()

    def disconnected(self) -> None:
        for callback in list(self.on_disconnected):
            callback()


class Bus:
    """A connection, and who we are on it: a service, or the node ``node_id``."""

    def __init__(
        self,
        wire: Wire,
        *,
        name: str,
        prefix: str = subjects.DEFAULT_PREFIX,
        node_id: str | None = None,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        self.wire = wire
        self.name = subjects.check_token(name, "name")
        self.prefix = subjects.check_token(prefix, "prefix")
        self.node_id = subjects.check_token(node_id, "node_id") if node_id else None
        self.dead_letters = wire.dead_letters  # what came and could not be given to anybody
        self._keepalive_s = keepalive_s
        self._watcher = _Watcher()
        self._channels: list[MeshChannel] = []
        wire.add_listener(self._watcher)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        creds: Path | None = None,
        name: str,
        prefix: str = subjects.DEFAULT_PREFIX,
        node_id: str | None = None,
        timeout_s: float | None = 10.0,
    ) -> Self:
        """Join the mesh over NATS; afterwards the connection comes back by itself for ever.

        Args:
            url: one or more addresses, separated by commas.
            creds: the credentials file, read again at each reconnect.
            timeout_s: how long to try at first; None tries for ever.

        Raises:
            Unreachable: no broker in time.
            Unauthenticated: the broker refuses the credentials.
        """
        inbox = subjects.node_inbox(node_id) if node_id else subjects.service_inbox(name)
        root = subjects.up_root(prefix, node_id) if node_id else subjects.any_root(prefix)
        wire = await natswires.connect(
            url,
            creds=creds,
            name=name,
            inbox_prefix=inbox,
            nobody=f"{root}._nobody",
            timeout_s=timeout_s,
        )
        return cls(wire, name=name, prefix=prefix, node_id=node_id)

    @property
    def connected(self) -> bool:
        return self.wire.connected

    def on_connected(self, callback: Callback) -> None:
        """Call back at each reconnect (the first connection is there already): resync then."""
        self._watcher.on_connected.append(callback)

    def on_disconnected(self, callback: Callback) -> None:
        """Call back at each loss of the connection."""
        self._watcher.on_disconnected.append(callback)

    def channel(
        self,
        target: str = subjects.ANY,
        *,
        default_timeout_s: float = DEFAULT_TIMEOUT_S,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        instance: str = "",
        idempotent: Collection[str] = (),
        compression: grpc.Compression | None = None,
    ) -> MeshChannel:
        """A channel for stubs: to any instance of a service, or to one node's own services.

        A node's calls carry its id in the subject; a node cannot call other nodes.

        Args:
            instance: call this instance of a service alone, see ``instances``.
            idempotent: methods (/package.Service/Method) that may be retried, besides those
                whose proto says so.
            compression: anything but None or NoCompression squeezes what is worth it.
        """
        if instance:
            assert self.node_id is None, "a node calls services, not instances"
            assert target == subjects.ANY, "an instance or a node, not both"
            root = subjects.one_root(self.prefix, subjects.check_token(instance, "instance"))
            inbox = self._own_inbox()
        elif self.node_id is not None:
            assert target == subjects.ANY, "a node calls services only"
            root, inbox = subjects.up_root(self.prefix, self.node_id), self._own_inbox()
        elif target == subjects.ANY:
            root, inbox = subjects.any_root(self.prefix), self._own_inbox()
        else:
            node = subjects.check_token(target, "target")
            root = subjects.node_root(self.prefix, node)
            inbox = subjects.back_inbox(self.prefix, node)
        self._channels = [each for each in self._channels if not each.closed]
        channel = MeshChannel(
            self.wire,
            root=root,
            inbox=inbox,
            default_timeout_s=default_timeout_s,
            interceptors=interceptors,
            keepalive_s=self._keepalive_s,
            idempotent=idempotent,
            compression=compression,
        )
        self._channels.append(channel)
        return channel

    def server(
        self,
        *,
        queue: str = "",
        up: Collection[str] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_concurrent: int = DEFAULT_MAX_CONCURRENT,
        max_per_node: int = DEFAULT_MAX_PER_NODE,
        compression: grpc.Compression | None = None,
        migration_thread_pool: concurrent.futures.Executor | None = None,
    ) -> MeshServer:
        """A server for servicers: a service's (shared by ``queue``), or this node's own.

        Args:
            queue: instances of one service share a name; default: this bus's name.
            up: full names of the services that nodes may call too.
            compression: of answers, unless the servicer says otherwise.
            migration_thread_pool: where servicers' plain functions run.
        """
        return MeshServer(
            self.wire,
            prefix=self.prefix,
            queue="" if self.node_id else queue or self.name,
            node_id=self.node_id or "",
            up=up,
            interceptors=interceptors,
            max_concurrent=max_concurrent,
            max_per_node=max_per_node,
            keepalive_s=self._keepalive_s,
            compression=compression,
            migration_thread_pool=migration_thread_pool,
        )

    async def instances(self, name: str, *, wait_s: float = 0.25) -> list[str]:
        """Which instances of a service are there: those that answer within ``wait_s`` seconds.

        Raises:
            WireDown: no connection now.
        """
        inbox = f"{self._own_inbox()}.{secrets.token_hex(8)}.micro"
        found = await micro.discover(self.wire, name, inbox=inbox, wait_s=wait_s)
        return [str(each["id"]) for each in found]

    def publish(self, subject: str, payload: bytes, *, headers: bytes = b"") -> None:
        """Tell ``<prefix>.<subject>``, at most once; ``headers``: an encoded block.

        Raises:
            WireDown: no connection now.
        """
        self.wire.publish(f"{self.prefix}.{subject}", payload, headers=headers)

    def subscribe(
        self, subject: str, callback: Callable[[str, bytes], None], *, queue: str = ""
    ) -> Unsubscribe:
        """Hear ``<prefix>.<subject>`` (wildcards allowed): callback(subject, payload)."""
        skip = len(self.prefix) + 1
        wanted = True

        def hand_over(delivery: Delivery) -> None:
            if wanted:
                callback(delivery.subject[skip:], delivery.payload)

        unsubscribe = self.wire.subscribe(f"{self.prefix}.{subject}", hand_over, queue=queue)

        def stop() -> None:
            nonlocal wanted
            wanted = False
            unsubscribe()

        return stop

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the broker has seen what was published and subscribed.

        Raises:
            WireDown: it does not answer.
        """
        await self.wire.flush(timeout_s)

    async def close(self) -> None:
        """Leave; calls in flight end CANCELLED. Stop servers first."""
        for channel in self._channels:
            await channel.close()
        self.wire.remove_listener(self._watcher)
        await self.wire.close()

    def _own_inbox(self) -> str:
        if self.node_id is not None:
            return subjects.node_inbox(self.node_id)
        return subjects.service_inbox(self.name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
