"""A scripted scheduler, billing and bundle store on a real broker, for tests of a real agent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from gridlease.agent.v1 import files_pb2_grpc
from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease.gateway.v1 import bundle_pb2, bundle_pb2_grpc
from gridlease.scheduler.v1 import sync_pb2, sync_pb2_grpc
from gridlease_agent.adapters.enrolment import Credential
from gridlease_kernel.faults import Missing
from gridlease_mesh.bus import Bus
from gridlease_mesh.context import caller_node
from gridlease_mesh.credentials import new_user_key, write_creds
from gridlease_mesh.events import send_hint
from gridlease_mesh.interceptors import FaultsToStatus

NODE = "n-1"
GRANT_MS = 20_000


@dataclass
class Centre:
    """What the control plane would know; tests change it and look at it."""

    bus: Bus
    nats_url: str
    generation: int = 0
    run: dict[str, sync_pb2.LeaseSpec] = field(default_factory=dict)
    stop: dict[str, sync_pb2.LeaseStop] = field(default_factory=dict)
    preload: list[sync_pb2.Preload] = field(default_factory=list)
    grant_ms: int = GRANT_MS
    refused: dict[str, tuple[str, int]] = field(default_factory=dict)  # lease -> reason, ms left
    silent: bool = False  # billing answers UNAVAILABLE
    older: bool = False  # the scheduler answers with a set of yesterday
    syncs: list[sync_pb2.SyncNodeRequest] = field(default_factory=list)
    settles: list[lease_pb2.SettleRequest] = field(default_factory=list)
    granted_at: dict[str, float] = field(default_factory=dict)
    spools: dict[str, str] = field(default_factory=dict)
    inventories: list[Any] = field(default_factory=list)
    bundles: dict[str, bytes] = field(default_factory=dict)

    def want(self, lease: str, commands: list[str], **more: Any) -> sync_pb2.LeaseSpec:
        """Put a lease into the desired set."""
        spec = sync_pb2.LeaseSpec(
            lease=lease,
            attempt=1,
            task=f"projects/demo/jobs/j-{lease}/tasks/0",
            tenant=more.pop("tenant", "tenants/demo"),
            commands=commands,
            start_by_ms=60_000,
            notice_ms=more.pop("notice_ms", 1000),
            **more,
        )
        held = spec.allocation
        held.cpu_milli, held.memory_bytes = 1000, 256 << 20
        held.disk_bytes, held.chip = 64 << 20, "cpu-x86-64"
        self.run[lease] = spec
        self.hint()
        return spec

    def end(self, lease: str, notice_ms: int = 1000, code: str = "", message: str = "") -> None:
        """Say stop, and why."""
        self.run.pop(lease, None)
        self.stop[lease] = sync_pb2.LeaseStop(lease=lease, notice_ms=notice_ms)
        if code:
            self.stop[lease].reason.code, self.stop[lease].reason.message = code, message
        self.hint()

    def forget(self, lease: str) -> None:
        """The lease is closed: it leaves the desired set."""
        self.run.pop(lease, None)
        self.stop.pop(lease, None)
        self.hint()

    def hint(self) -> None:
        self.generation += 1
        send_hint(self.bus, NODE, self.generation)

    def bundle(self, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.bundles[digest] = content
        return digest

    def seen(self, lease: str) -> sync_pb2.LeaseObservation | None:
        """The newest observation of a lease."""
        for request in reversed(self.syncs):
            for one in request.leases:
                if one.lease == lease:
                    return one
        return None

    def exit(self, lease: str) -> sync_pb2.TaskExit | None:
        one = self.seen(lease)
        return one.exit if one is not None and one.HasField("exit") else None

    def gone(self, lease: str) -> bool:
        one = self.seen(lease)
        return one is not None and one.gone

    def running(self, lease: str) -> bool:
        one = self.seen(lease)
        return one is not None and one.running

    def charged_ns(self, lease: str) -> int:
        """The high-water mark of its run meter."""
        return max(
            (
                counter.cumulative
                for request in self.settles
                for report in request.reports
                if report.lease == lease
                for counter in report.counters
                if counter.meter == "run"
            ),
            default=0,
        )

    def files(self) -> files_pb2_grpc.TaskFileServiceStub:
        return files_pb2_grpc.TaskFileServiceStub(self.bus.channel(NODE))


class _Sync(sync_pb2_grpc.SyncServiceServicer):
    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    async def SyncNode(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert caller_node(context)
        centre = self._centre
        centre.syncs.append(request)
        if centre.older:
            return sync_pb2.SyncNodeResponse(generation=0)
        return sync_pb2.SyncNodeResponse(
            generation=centre.generation,
            run=list(centre.run.values()),
            stop=list(centre.stop.values()),
            preload=centre.preload,
        )

    async def ReportInventory(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._centre.inventories.append(request.inventory)
        return sync_pb2.ReportInventoryResponse(site="sites/local")


class _Settlement(lease_pb2_grpc.SettlementServiceServicer):
    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    async def Settle(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert caller_node(context) == NODE
        centre = self._centre
        if centre.silent:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "billing is away")
        centre.settles.append(request)
        grants = [self._grant(request.spool_id, report) for report in request.reports]
        return lease_pb2.SettleResponse(grants=grants)

    def _grant(self, spool_id: str, report: Any) -> lease_pb2.LeaseGrant:
        centre = self._centre
        pinned = centre.spools.setdefault(report.lease, spool_id) == spool_id
        grant = lease_pb2.LeaseGrant(lease=report.lease, segment=1)
        if report.final:
            grant.final_acknowledged = True
        elif not pinned:
            grant.last, grant.reason = True, "OTHER_SPOOL"
        elif report.lease in centre.refused:
            grant.reason, grant.valid_for_ms = centre.refused[report.lease]
            grant.last = True
        else:
            grant.valid_for_ms = centre.grant_ms
            centre.granted_at[report.lease] = time.monotonic()
        return grant


class _Bundles(bundle_pb2_grpc.BundleContentServiceServicer):
    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    async def ReadBundle(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        content = self._centre.bundles.get(request.digest)
        if content is None:
            raise Missing("No such bundle.", reason="BUNDLE_NOT_FOUND", field="digest")
        for at in range(0, len(content), 200_000):
            yield bundle_pb2.ReadBundleResponse(content=content[at : at + 200_000])


@contextlib.asynccontextmanager
async def running(nats: Any) -> AsyncIterator[Centre]:
    """The centre, serving."""
    async with await Bus.connect(
        nats.url, creds=nats.service_creds("scheduler"), name="scheduler"
    ) as bus:
        centre = Centre(bus, nats.url)
        up = (
            "gridlease.scheduler.v1.SyncService",
            "gridlease.billing.v1.SettlementService",
            "gridlease.gateway.v1.BundleContentService",
        )
        server = bus.server(up=up, interceptors=(FaultsToStatus(),))
        sync_pb2_grpc.add_SyncServiceServicer_to_server(_Sync(centre), server)
        lease_pb2_grpc.add_SettlementServiceServicer_to_server(_Settlement(centre), server)
        bundle_pb2_grpc.add_BundleContentServiceServicer_to_server(_Bundles(centre), server)
        await server.start()
        await bus.flush()
        try:
            yield centre
        finally:
            await server.stop(1.0)


def enrol(nats: Any, state: Path, node_id: str = NODE) -> Credential:
    """What joining leaves in a node's state folder."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    seed, public = new_user_key()
    write_creds(state / "node.creds", nats.authority.mint_node_user(node_id, public), seed)
    credential = Credential(node_id, nats.url, "gl", creds=True)
    (state / "credential.json").write_text(
        json.dumps(
            {
                "node_id": node_id,
                "nats_url": nats.url,
                "subject_prefix": "gl",
                "creds": True,
            }
        )
    )
    return credential
