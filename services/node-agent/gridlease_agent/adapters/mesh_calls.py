"""The scheduler, billing and the bundle store, as the agent's ports see them, over the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, cast

import grpc.aio
from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease.gateway.v1 import bundle_pb2, bundle_pb2_grpc
from gridlease.scheduler.v1 import sync_pb2, sync_pb2_grpc
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh import meter_report
from gridlease_mesh.bus import Bus
from gridlease_mesh.signatures import Signer
from gridlease_mesh.status import fault_from_error

from gridlease_agent.domain.lease import Answer, Report
from gridlease_agent.domain.meters import EGRESS_METER, ENERGY_METER
from gridlease_agent.domain.spool import RUN_METER, Spool, StopOrder, Wiped
from gridlease_agent.domain.task import Egress, NetworkClass, NetworkGrant, Task, Tenancy, told
from gridlease_agent.ports import Desired, Preload, Seen

if TYPE_CHECKING:
    from gridlease.billing.v1.lease_pb2_grpc import SettlementServiceAsyncStub
    from gridlease.gateway.v1.bundle_pb2_grpc import BundleContentServiceAsyncStub
    from gridlease.scheduler.v1.sync_pb2_grpc import SyncServiceAsyncStub

# The row's name says the unit; the wire's is the catalogue's.
_METERS = {RUN_METER: "run", EGRESS_METER: "egress", ENERGY_METER: "energy"}
_BUNDLE_TIMEOUT_S = 300.0


class SchedulerCalls:
    """SyncService. ``signer``: of wipe receipts; a node without a key of its own signs none."""

    def __init__(self, bus: Bus, timeout_s: float, signer: Signer | None = None) -> None:
        stub = sync_pb2_grpc.SyncServiceStub(bus.channel(default_timeout_s=timeout_s))
        self._stub = cast("SyncServiceAsyncStub", stub)
        self._signer = signer

    async def sync(
        self, spool: Spool, boot_id: str, seen: Iterable[Seen], devices: Iterable[str]
    ) -> Desired:
        """Tell what is on disk; what should be.

        Raises:
            Fault: no answer; ask again.
        """
        request = sync_pb2.SyncNodeRequest(
            spool_id=spool.spool_id,
            boot_id=boot_id,
            generation=spool.generation,
            leases=[_observation(one, self._signer) for one in seen],
            devices=[
                sync_pb2.DeviceObservation(
                    device_id=device_id, state=device_state(device_id in spool.dirty)
                )
                for device_id in devices
            ],
        )
        try:
            answer = await self._stub.SyncNode(request)
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error
        tasks = tuple((_task(spec), _for_disk(spec)) for spec in answer.run)
        stops = tuple(
            StopOrder(one.lease, one.notice_ms, one.reason.code, one.reason.message)
            for one in answer.stop
        )
        return Desired(answer.generation, tasks, stops, tuple(map(_preload, answer.preload)))

    async def report(self, inventory: fleet_pb2.NodeInventory) -> str:
        """Tell what the node is made of; the site that it belongs to.

        Raises:
            Fault: no answer; tell again.
        """
        request = sync_pb2.ReportInventoryRequest(inventory=inventory)
        try:
            return str((await self._stub.ReportInventory(request)).site)
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error

    async def renew(self) -> tuple[str, int]:
        """A fresh credential of this node's own key, and how long it is good for, in ms.

        Raises:
            Fault: a refusal, or no answer: ask again.
        """
        try:
            answer = await self._stub.RenewCredential(sync_pb2.RenewCredentialRequest())
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error
        return str(answer.credential_jwt), int(answer.valid_for_ms)

    def decode(self, lease: bytes) -> Task:
        """A task as its bytes on disk tell of it."""
        task = _task(sync_pb2.LeaseSpec.FromString(lease))
        return replace(task, sealed=bool(task.secrets), secrets=())


def device_state(dirty: bool) -> fleet_pb2.DeviceState.ValueType:
    """The wire's word."""
    return fleet_pb2.DEVICE_STATE_DIRTY if dirty else fleet_pb2.DEVICE_STATE_CLEAN


def receipt(lease_id: str, wiped: Sequence[Wiped], signer: Signer | None) -> sync_pb2.WipeReceipt:
    """What was wiped for a lease, with the node's word for it."""
    verified_ns = max((x.verified_ns for x in wiped), default=0)
    public_key = signer.public_key if signer else ""
    pairs = [(x.what, x.method) for x in wiped]
    text = wipe_text(lease_id, public_key, pairs, verified_ns)
    made = sync_pb2.WipeReceipt(
        wiped=[what for what, _ in pairs],
        methods=[method for _, method in pairs],
        public_key=public_key,
        signature=signer.sign(text) if signer else b"",
    )
    made.verify_time.FromNanoseconds(verified_ns)
    return made


def _observation(one: Seen, signer: Signer | None) -> sync_pb2.LeaseObservation:
    sighting = one.sighting
    observation = sync_pb2.LeaseObservation(
        lease=sighting.lease_id,
        phase=sync_pb2.LeasePhase.ValueType(int(sighting.phase)),
        running=one.running,
        gone=sighting.gone,
    )
    if sighting.wiped:
        observation.receipt.CopyFrom(receipt(sighting.lease_id, sighting.wiped, signer))
    saved, told_of = one.report.checkpoint, one.report.progress
    if saved is not None:
        observation.checkpoint.id = saved.id
        observation.checkpoint.create_time.FromNanoseconds(saved.saved_ns)
    if told_of is not None:
        observation.progress.CopyFrom(sync_pb2.TaskProgress(**asdict(told_of)))
    if sighting.exit is not None:
        reason, message = told(sighting.exit.reason, one.ending.message)
        observation.exit.CopyFrom(
            sync_pb2.TaskExit(
                exit_code=sighting.exit.code,
                reason=reason,
                message=message,
                ran_ns=sighting.exit.ran_ns,
                memory_peak_bytes=one.ending.memory_peak_bytes,
                cpu_ns=one.ending.cpu_ns,
            )
        )
    return observation


def _for_disk(spec: sync_pb2.LeaseSpec) -> bytes:
    """The bytes that tell of a lease, with its secrets' names and not their values."""
    if not spec.secrets:
        return spec.SerializeToString()
    kept = sync_pb2.LeaseSpec()
    kept.CopyFrom(spec)
    for name in spec.secrets:
        kept.secrets[name] = ""
    return kept.SerializeToString()


def _task(spec: sync_pb2.LeaseSpec) -> Task:
    held = spec.allocation
    return Task(
        lease_id=spec.lease,
        name=spec.task,
        tenant=spec.tenant,
        attempt=spec.attempt,
        cpu_milli=held.cpu_milli,
        memory_bytes=held.memory_bytes,
        disk_bytes=held.disk_bytes,
        device_ids=tuple(held.device_ids),
        commands=tuple(spec.commands),
        env=tuple(sorted(spec.env.items())),
        bundle_digest=spec.bundle_digest,
        outputs=tuple(spec.outputs),
        runtime=spec.runtime,
        max_duration_ms=spec.max_duration_ms,
        notice_ms=spec.notice_ms,
        start_by_ms=spec.start_by_ms,
        traceparent=spec.traceparent,
        gang_index=spec.gang_index,
        hosts=tuple(peer.hostname or peer.node for peer in spec.peers),
        checkpoint=spec.checkpoint,
        promised_until=(
            spec.promised_until_time.ToJsonString() if spec.HasField("promised_until_time") else ""
        ),
        network=_network(spec.network),
        image=spec.image,
        tenancy=_TENANCIES.get(spec.tenancy, Tenancy.SHARED),
        secrets=tuple(sorted(spec.secrets.items())),
        interactive=spec.type == job_pb2.JOB_TYPE_DEV_ENVIRONMENT,
        idle_stop_ms=spec.idle_stop_ms,
        ssh_keys=tuple(spec.ssh_keys),
    )


_TENANCIES = {
    job_pb2.TENANCY_EXCLUSIVE_DEVICE: Tenancy.EXCLUSIVE_DEVICE,
    job_pb2.TENANCY_EXCLUSIVE_HOST: Tenancy.EXCLUSIVE_HOST,
}
_CLASSES = {
    job_pb2.NETWORK_CLASS_CRITICAL: NetworkClass.CRITICAL,
    job_pb2.NETWORK_CLASS_BULK: NetworkClass.BULK,
}
_EGRESS = {
    job_pb2.EGRESS_PEERS: Egress.PEERS,
    job_pb2.EGRESS_LISTED: Egress.LISTED,
    job_pb2.EGRESS_PUBLIC: Egress.PUBLIC,
}


def _preload(one: sync_pb2.Preload) -> Preload:
    usual = Preload()
    return Preload(
        one.image,
        one.runtime,
        one.tenant,
        one.created,
        one.frozen,
        tuple(one.modules),
        one.cpu_milli or usual.cpu_milli,
        one.memory_bytes or usual.memory_bytes,
        one.disk_bytes or usual.disk_bytes,
    )


def _network(grant: sync_pb2.NetworkGrant) -> NetworkGrant:
    return NetworkGrant(
        guaranteed_mbps=grant.guaranteed_mbps,
        network_class=_CLASSES.get(grant.network_class, NetworkClass.STANDARD),
        latency_us=grant.latency_us,
        path=tuple(word for word in grant.path.split(",") if word),
        egress=_EGRESS.get(grant.egress, Egress.NONE),
        egress_to=tuple(grant.egress_to),
    )


class BillingCalls:
    """SettlementService. ``signer``: of meter reports; a node without a key of its own signs
    none."""

    def __init__(self, bus: Bus, timeout_s: float, signer: Signer | None = None) -> None:
        self._signer = signer
        self._signed: dict[str, tuple[str, bytes]] = {}  # each lease's last report, signed
        channel = bus.channel(default_timeout_s=timeout_s)
        stub = lease_pb2_grpc.SettlementServiceStub(channel)
        self._stub = cast("SettlementServiceAsyncStub", stub)

    async def settle(self, spool_id: str, reports: Iterable[Report]) -> tuple[Answer, ...]:
        """Cumulative counters -> grants.

        Raises:
            Fault: no answer; it may or may not have happened: ask again.
        """
        told = [_report(report) for report in reports]
        if self._signer is not None:
            self._sign(told, spool_id, self._signer)
        request = lease_pb2.SettleRequest(spool_id=spool_id, reports=told)
        try:
            answer = await self._stub.Settle(request)
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error
        return tuple(
            Answer(
                grant.lease,
                grant.valid_for_ms,
                grant.last,
                grant.reason,
                grant.segment,
                grant.final_acknowledged,
            )
            for grant in answer.grants
        )

    def _sign(
        self, reports: Iterable[lease_pb2.LeaseReport], spool_id: str, signer: Signer
    ) -> None:
        """Puts the node's signature under each canonical text: made once for a text."""
        before, self._signed = self._signed, {}
        for it in reports:
            counters = [(each.segment, each.meter, each.cumulative) for each in it.counters]
            text = meter_report.text(it.lease, spool_id, it.phase, it.final, counters)
            last = before.get(it.lease)
            signature = last[1] if last and last[0] == text else signer.sign(text.encode())
            self._signed[it.lease] = (text, signature)
            it.signature = signature


def _report(report: Report) -> lease_pb2.LeaseReport:
    return lease_pb2.LeaseReport(
        lease=report.lease_id,
        phase=lease_pb2.SettlePhase.ValueType(int(report.phase)),
        final=report.final,
        counters=[
            lease_pb2.Counter(segment=segment, meter=_METERS[meter], cumulative=cumulative)
            for (segment, meter), cumulative in sorted(report.counters.items())
        ],
    )


class BundleCalls:
    """BundleContentService."""

    def __init__(self, bus: Bus) -> None:
        channel = bus.channel(default_timeout_s=_BUNDLE_TIMEOUT_S)
        stub = bundle_pb2_grpc.BundleContentServiceStub(channel)
        self._stub = cast("BundleContentServiceAsyncStub", stub)

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """The bundle's bytes, in pieces.

        Raises:
            Fault: MISSING where there is none; no answer.
        """
        try:
            async for piece in self._stub.ReadBundle(bundle_pb2.ReadBundleRequest(digest=digest)):
                yield piece.content
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error
