"""Calls to the rooms inside: a room that restarts is a pause for the client, not an error.

Every call that goes through here is idempotent (reads, and creates with a request_id), so it may
be asked again; a stream is opened again by the one who knows where it stood.
"""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from gridlease.agent.v1 import files_pb2_grpc, session_pb2_grpc
from gridlease.billing.v1 import (
    account_pb2_grpc,
    contract_pb2_grpc,
    receivable_pb2_grpc,
    report_pb2_grpc,
    supplier_pb2_grpc,
)
from gridlease.scheduler.v1 import capacity_pb2_grpc, fleet_pb2_grpc, job_pb2_grpc
from gridlease_kernel.faults import Conflict, Fault, Late, Unreachable
from gridlease_mesh import status
from gridlease_mesh.bus import Bus
from gridlease_mesh.channel import MeshChannel

A = TypeVar("A", bound=Message)

_ATTEMPT_S = 5.0  # a server killed in the middle of a unary call shows at the deadline only
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 1.0
_NODES_MAX = 256  # least recently asked beyond that are let go
_NODE_GRACE_S = 600.0
_ROOMS = {"scheduler": "SCHEDULER_UNREACHABLE", "billing": "BILLING_UNREACHABLE"}


@dataclass(frozen=True, slots=True)
class _OnNode:
    """One node's channel and the stubs on it."""

    channel: MeshChannel
    files: Any
    sessions: Any


class Inside:
    """Stubs for the rooms and for nodes, on the mesh."""

    def __init__(
        self,
        bus: Bus,
        *,
        patience_s: float,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        self._bus = bus
        self._interceptors = tuple(interceptors)
        self.patience_s = patience_s
        channel = bus.channel(interceptors=self._interceptors)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(channel)
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)
        self.capacity: Any = capacity_pb2_grpc.CapacityServiceStub(channel)
        self.suppliers: Any = supplier_pb2_grpc.SupplierServiceStub(channel)
        self.receivables: Any = receivable_pb2_grpc.ReceivableServiceStub(channel)
        self.contracts: Any = contract_pb2_grpc.ContractServiceStub(channel)
        self.accounts: Any = account_pb2_grpc.AccountServiceStub(channel)
        self.reports: Any = report_pb2_grpc.ReportServiceStub(channel)
        self._nodes: collections.OrderedDict[str, _OnNode] = collections.OrderedDict()
        self._closing: set[asyncio.Future[None]] = set()

    def files_of(self, node_id: str) -> Any:
        """A stub of a node's own TaskFileService."""
        return self._on(node_id).files

    def sessions_of(self, node_id: str) -> Any:
        """A stub of a node's own SessionService."""
        return self._on(node_id).sessions

    def _on(self, node_id: str) -> _OnNode:
        known = self._nodes.pop(node_id, None)
        if known is None:
            channel = self._bus.channel(node_id, interceptors=self._interceptors)
            known = _OnNode(
                channel,
                files_pb2_grpc.TaskFileServiceStub(channel),
                session_pb2_grpc.SessionServiceStub(channel),
            )
        self._nodes[node_id] = known
        if len(self._nodes) > _NODES_MAX:
            _, oldest = self._nodes.popitem(last=False)
            closing = asyncio.ensure_future(oldest.channel.close(grace=_NODE_GRACE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return known

    async def ask(
        self, method: Callable[..., Any], request: Message, left_s: float, answer: type[A]
    ) -> A:
        """The answer, asked again while the room is away, within ``left_s`` seconds.

        Raises:
            Fault: what the room said; Unreachable when it said nothing in time.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(left_s, self.patience_s)
        pause_s = _FIRST_PAUSE_S
        while True:
            attempt_s = min(_ATTEMPT_S, give_up - loop.time())
            try:
                got = await method(request, timeout=max(attempt_s, 0.001))
            except grpc.aio.AioRpcError as error:
                fault = fault_of(error, room_of(request))
                if not is_passing(fault) or loop.time() + pause_s >= give_up:
                    raise fault from error
            else:
                assert isinstance(got, answer), type(got)
                return got
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)


class Patience:
    """Counts how long a stream has been without progress, and paces its new openings."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self.progress()

    def progress(self) -> None:
        """Something came: all is forgiven."""
        self._since = self._loop.time()
        self._pause_s = _FIRST_PAUSE_S

    async def bear(self, fault: Fault) -> None:
        """Wait before the next try.

        Raises:
            Fault: ``fault`` itself, if it will not pass or lasts too long.
        """
        spent_s = self._loop.time() - self._since
        if not is_passing(fault) or spent_s + self._pause_s > self._limit_s:
            raise fault
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._pause_s = min(self._pause_s * 2, _LAST_PAUSE_S)


def is_passing(fault: Fault) -> bool:
    """Whether the same question may get an answer soon."""
    if isinstance(fault, Conflict):
        return fault.reason == "DATABASE_CONFLICT"
    return isinstance(fault, (Unreachable, Late))


def fault_of(error: grpc.aio.AioRpcError, room: str) -> Fault:
    """What a failed call inside means to the client.

    A room that does not answer is named; what it said itself is passed on.
    """
    fault = status.fault_from_error(error)
    silent = isinstance(fault, (Unreachable, Late)) and fault.reason == error.code().name
    if not silent:
        return fault
    return Unreachable(
        f"The {room} does not answer now.",
        reason=_ROOMS.get(room, "NODE_UNREACHABLE"),
        remedy="Try again soon; running work goes on meanwhile.",
        retry_after_ms=1_000,
    )


def room_of(request: Message) -> str:
    """The room that a request is for, by its package: "scheduler", "billing" or "node"."""
    room = request.DESCRIPTOR.file.package.split(".")[1]
    return "node" if room == "agent" else room
