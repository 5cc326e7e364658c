"""The connection: calls that are asked again while the door restarts, faults instead of codes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from gridlease.gateway.v1 import contract_pb2_grpc, gateway_pb2_grpc
from gridlease_kernel.faults import Conflict, Fault, Invalid, Precondition, Unreachable
from gridlease_mesh import status

A = TypeVar("A", bound=Message)

FIRST_PATIENCE_S = 10.0  # a wrong endpoint is told soon; a restart of the door takes less
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 2.0
_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Connection:
    """Stubs on one channel; use it in one event loop.

    Args:
        endpoint: "host:port", or "https://host:port" for TLS.
        api_key: sent with every call.
        timeout_s: of one call.
        patience_s: how long a call or a stream outlives an absent platform; at most
            ``FIRST_PATIENCE_S`` while this connection has never had an answer.
        ca_file: PEM of the authority to trust instead of the system's.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 30.0,
        ca_file: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._patience_s = patience_s
        self._answered = False
        self._timeout_s = timeout_s
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self.channel = _open(endpoint, ca_file)
        self.jobs: Any = gateway_pb2_grpc.JobServiceStub(self.channel)
        self.sessions: Any = gateway_pb2_grpc.SessionServiceStub(self.channel)
        self.fleet: Any = gateway_pb2_grpc.FleetServiceStub(self.channel)
        self.capacity: Any = gateway_pb2_grpc.CapacityServiceStub(self.channel)
        self.billing: Any = gateway_pb2_grpc.BillingServiceStub(self.channel)
        self.reports: Any = gateway_pb2_grpc.ReportServiceStub(self.channel)
        self.suppliers: Any = contract_pb2_grpc.SupplierServiceStub(self.channel)
        self.receivables: Any = contract_pb2_grpc.ReceivableServiceStub(self.channel)
        self.webhooks: Any = contract_pb2_grpc.WebhookServiceStub(self.channel)
        self.contracts: Any = contract_pb2_grpc.ContractServiceStub(self.channel)
        self.access: Any = gateway_pb2_grpc.AccessServiceStub(self.channel)

    async def ask(
        self, method: Callable[..., Any], request: Any, answer: type[A], *, again: bool = True
    ) -> A:
        """The answer; asked again while the platform is away if ``again`` (it is idempotent).

        Raises:
            Fault: what the platform said; Unreachable when it said nothing in time.
        """
        patience = Patience(self.patience if again else _none)
        while True:
            try:
                options = {"metadata": self._metadata, "timeout": self._timeout_s}
                got = await method(request, **options)
            except grpc.aio.AioRpcError as error:
                await patience.bear(self.fault(error))
            else:
                assert isinstance(got, answer), type(got)
                self._answered = True
                return got

    def patience(self) -> float:
        """How many seconds without progress to bear now: few where nothing ever answered."""
        return self._patience_s if self._answered else min(self._patience_s, FIRST_PATIENCE_S)

    def open(self, method: Callable[..., Any], request: Any) -> Any:
        """A stream of answers, without a deadline of its own: the caller ends it."""
        return method(request, metadata=self._metadata)

    def open_session(self, method: Callable[..., Any]) -> Any:
        """A stream both ways, without a deadline of its own: the caller ends it."""
        return method(metadata=self._metadata)

    def fault(self, error: grpc.aio.AioRpcError) -> Fault:
        """What a failed call means."""
        fault = status.fault_from_error(error)
        self._answered |= error.code() is not grpc.StatusCode.UNAVAILABLE
        if isinstance(fault, Unreachable) and fault.reason == error.code().name:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return Unreachable(
                    f"The platform at {self.endpoint} does not answer.",
                    reason="PLATFORM_UNREACHABLE",
                    field="endpoint",
                    remedy="Check that it runs (./dev up) and that the endpoint is right.",
                )
            fault.remedy = fault.remedy or "See the gateway's log."
        return fault

    async def close(self) -> None:
        """End the connection and the calls on it."""
        await self.channel.close()


def _none() -> float:
    return 0.0


class Patience:
    """Counts how long it has been without progress, and paces new attempts."""

    def __init__(self, limit_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self.progress()

    def progress(self) -> None:
        """Something came: all is forgiven."""
        self._since = self._loop.time()
        self._pause_s = _FIRST_PAUSE_S

    async def bear(self, fault: Fault) -> None:
        """Wait before the next attempt.

        Raises:
            Fault: ``fault`` itself, if it will not pass or lasts too long.
        """
        passing = isinstance(fault, Unreachable) or (
            isinstance(fault, Conflict) and fault.reason == "DATABASE_CONFLICT"
        )
        hinted_s = 0.0
        if fault.reason == "RATE_LIMITED" and fault.retry_after_ms is not None:
            passing, hinted_s = True, fault.retry_after_ms / 1_000
        pause_s = max(self._pause_s * random.uniform(0.5, 1.0), hinted_s)  # noqa: S311 - jitter
        if not passing or self._loop.time() - self._since + pause_s > self._limit_s():
            raise fault
        await asyncio.sleep(pause_s)
        self._pause_s = min(self._pause_s * 2, _LAST_PAUSE_S)


def _open(endpoint: str, ca_file: Path | None) -> grpc.aio.Channel:
    scheme, mark, rest = endpoint.rpartition("://")
    address = rest.rstrip("/")
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()) or (mark and scheme not in ("http", "https")):
        raise Invalid(
            f"{endpoint!r} is not an endpoint.",
            reason="ENDPOINT_MALFORMED",
            field="endpoint",
            remedy="Write it as host:port, or https://host:port.",
        )
    if scheme != "https":
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    try:
        root = ca_file.read_bytes() if ca_file else None
    except OSError as error:
        raise Precondition(
            f"{ca_file} cannot be read: {error.strerror or error}",
            reason="CA_FILE",
            field="ca_file",
            remedy="Name the PEM file of the authority that signed the platform's certificate.",
        ) from error
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root), options=_OPTIONS)
