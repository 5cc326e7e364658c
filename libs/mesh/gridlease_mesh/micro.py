"""Presence that any NATS tool understands: $SRV.PING, $SRV.INFO and $SRV.STATS.

Source: NATS ADR-32 (services), schema io.nats.micro.v1.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridlease_mesh import frames
from gridlease_mesh.deadletters import DeadLetters
from gridlease_mesh.wire import Delivery, Unsubscribe, Wire, WireDown

API = "$SRV"
VERSION = "0.1.0"
_KIND = "io.nats.micro.v1.{}_response"
_ARITIES = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi",
}


@dataclass(slots=True)
class Endpoint:
    """One method: what it is, and what has happened to it."""

    name: str
    subject: str
    queue: str
    arity: str
    requests: int = 0
    errors: int = 0
    spent_ns: int = 0
    last_error: str = ""

    def info(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.queue,
            "metadata": {"arity": self.arity},
        }

    def stats(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.queue,
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": self.spent_ns,
            "average_processing_time": self.spent_ns // max(1, self.requests),
        }


@dataclass(slots=True)
class Service:
    """One instance of a service, and its endpoints by method."""

    name: str
    instance: str
    dead_letters: DeadLetters
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    started_s: float = field(default_factory=time.time)

    def add(self, method: str, handler: Any, subject: str, queue: str) -> None:
        """Take note of ``/package.Service/Method``."""
        name = method.strip("/").replace(".", "_").replace("/", "-")
        arity = _ARITIES[bool(handler.request_streaming), bool(handler.response_streaming)]
        self.endpoints[method] = Endpoint(name, subject, queue, arity)

    def count(self, method: str, spent_s: float, error: str) -> None:
        """A call has ended; ``error`` is empty where it ended OK."""
        endpoint = self.endpoints.get(method)
        if endpoint is None:
            return
        endpoint.requests += 1
        endpoint.spent_ns += int(spent_s * 1e9)
        if error:
            endpoint.errors += 1
            endpoint.last_error = error[:256]

    def describe(self, verb: str) -> dict[str, Any]:
        """The answer to PING, INFO or STATS."""
        base: dict[str, Any] = {
            "type": _KIND.format(verb.lower()),
            "name": self.name,
            "id": self.instance,
            "version": VERSION,
            "metadata": {"protocol": "gridlease-mesh"},
        }
        if verb == "INFO":
            base["description"] = "gRPC services over NATS"
            base["endpoints"] = [each.info() for each in self.endpoints.values()]
        elif verb == "STATS":
            started = datetime.datetime.fromtimestamp(self.started_s, datetime.UTC)
            base["started"] = started.isoformat().replace("+00:00", "Z")
            base["endpoints"] = [each.stats() for each in self.endpoints.values()]
            base["metadata"]["dead_letters"] = str(self.dead_letters.total)
        return base


class Responder:
    """Answers for one service until closed."""

    def __init__(self, wire: Wire, service: Service) -> None:
        self._wire = wire
        self._service = service
        self._unsubscribes: list[Unsubscribe] = []
        for verb in ("PING", "INFO", "STATS"):
            for tail in ("", f".{service.name}", f".{service.name}.{service.instance}"):
                self._unsubscribes.append(wire.subscribe(f"{API}.{verb}{tail}", self._on_question))

    def close(self) -> None:
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._unsubscribes.clear()

    def _on_question(self, delivery: Delivery) -> None:
        if not delivery.reply:
            return
        answer = self._service.describe(delivery.subject.split(".")[1])
        try:
            self._wire.publish(delivery.reply, json.dumps(answer).encode())
        except WireDown:
            return


async def discover(
    wire: Wire, name: str, *, inbox: str, verb: str = "PING", wait_s: float = 0.25
) -> list[Mapping[str, Any]]:
    """What the instances of a service answer within ``wait_s`` seconds; none is an empty list.

    Raises:
        WireDown: no connection now.
    """
    heard: list[Mapping[str, Any]] = []
    nobody = asyncio.Event()

    def hear(delivery: Delivery) -> None:
        if frames.decode_headers(delivery.headers).code == frames.NO_RESPONDERS:
            nobody.set()
        else:
            heard.append(json.loads(delivery.payload))

    unsubscribe = wire.subscribe(inbox, hear)
    try:
        wire.publish(f"{API}.{verb}.{name}", b"", reply=inbox)
        async with asyncio.timeout(wait_s):
            await nobody.wait()
    except TimeoutError:
        pass
    finally:
        unsubscribe()
    return heard
