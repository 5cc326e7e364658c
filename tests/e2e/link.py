"""A cable between a node and the broker that a test can cut and heal."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable


class Link:
    """Forwards TCP from a port of its own to ``target()``, until it is cut."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._open = True
        self._done = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._server.getsockname()[1]}"

    def cut(self) -> None:
        """As a pulled cable: nothing passes, nothing answers."""
        with self._lock:
            self._open = False
        self._waker.send(b"x")

    def heal(self) -> None:
        with self._lock:
            self._open = True
        self._waker.send(b"x")

    def close(self) -> None:
        self._done = True
        self._waker.send(b"x")
        self._thread.join(5)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._done:
                for key, _ in selector.select(1.0):
                    self._serve(selector, key.fileobj)
            for one in list(self._pairs):
                self._drop(selector, one)
        for one in (self._server, self._wake, self._waker):
            one.close()

    def _serve(self, selector: selectors.BaseSelector, ready: object) -> None:
        if ready is self._wake:
            self._wake.recv(64)
            if not self._open:
                for one in list(self._pairs):
                    self._drop(selector, one)
        elif ready is self._server:
            self._accept(selector)
        elif isinstance(ready, socket.socket) and ready in self._pairs:
            self._forward(selector, ready)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._server.accept()
        if not self._open:
            near.close()
            return
        try:
            far = socket.create_connection(self._target(), 2)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near
        for one in (near, far):
            selector.register(one, selectors.EVENT_READ)

    def _forward(self, selector: selectors.BaseSelector, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if data:
                self._pairs[source].sendall(data)
                return
        except OSError:
            pass
        self._drop(selector, source)

    def _drop(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        for end in filter(None, (one, other)):
            self._pairs.pop(end, None)
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(end)
            end.close()
