"""Puts one node together from its parts: the only place that knows every class."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path

from gridlease.agent.v1 import files_pb2_grpc, session_pb2_grpc
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Unauthenticated, Unreachable
from gridlease_kernel.ids import RandomIds
from gridlease_mesh import subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.events import on_hint
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.signatures import Signer, signer_of
from gridlease_mesh.spans import SpanSender
from gridlease_mesh.telemetry_sample import DeviceIdentity, NodeIdentity

from gridlease_agent.adapters.bundles import BundleFolder
from gridlease_agent.adapters.enrolment import Credential, CredentialFile
from gridlease_agent.adapters.host import ThisHost
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.adapters.mesh_calls import BillingCalls, BundleCalls, SchedulerCalls
from gridlease_agent.adapters.metrics_page import MetricsPage
from gridlease_agent.adapters.prepared import PreparedFolder
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.adapters.telemetry_spool import TelemetrySpool
from gridlease_agent.ailments import Ailments, marked
from gridlease_agent.backfill import Backfill
from gridlease_agent.body import Body, core_body, emulated_body, real_body
from gridlease_agent.book import Book
from gridlease_agent.certificates import Certificates
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.devices.place import NVML, Place, place_of
from gridlease_agent.domain import lease
from gridlease_agent.domain.chips import chip_name
from gridlease_agent.domain.session import Limits, idle
from gridlease_agent.domain.spool import Row
from gridlease_agent.domain.task import Overtime, Task
from gridlease_agent.domain.warm import Bounds
from gridlease_agent.energy import EnergyTally
from gridlease_agent.health import Health
from gridlease_agent.images.fetch import Fetcher
from gridlease_agent.images.tasks import TaskImages
from gridlease_agent.inventory import (
    inventory,
)
from gridlease_agent.isolate.rootfs import read as read_host
from gridlease_agent.observe import Leases, Observer
from gridlease_agent.ports import Files, Host
from gridlease_agent.prepare import Preparer
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.reconcile import Reconciler
from gridlease_agent.recover import recover
from gridlease_agent.renewal import Renewal
from gridlease_agent.report import Reporter
from gridlease_agent.rpc import TaskFiles
from gridlease_agent.rpc_sessions import TaskSessions
from gridlease_agent.sampling.devices import DeviceSampler, Look, by_files, by_nvml
from gridlease_agent.sampling.host import HostSampler, energy_file, energy_zones
from gridlease_agent.sampling.kept import KeptFiles
from gridlease_agent.sampling.leases import LeaseSampler
from gridlease_agent.scrub import Scrubber
from gridlease_agent.sessions.desk import Desk
from gridlease_agent.settings import Settings
from gridlease_agent.settle import Settler
from gridlease_agent.spans import TaskSpans
from gridlease_agent.sync import Syncer
from gridlease_agent.warm import WarmPool
from gridlease_agent.watch import Watch

_LOG = logging.getLogger(__name__)
_STOP_S = 2.0
_CONNECT_S = 10.0
_SETTLE_S = 5.0


__all__ = ["Body", "Node", "core_body", "emulated_body", "real_body"]


class Node:
    """One running node: its connection, its loops, its own service."""

    def __init__(
        self,
        state: Path,
        environments: Path,
        credential: Credential,
        body: Body,
        settings: Settings,
        host: Host | None = None,
        site: str = "",
    ) -> None:
        self._state = state
        self._site = site
        self._credential = credential
        self._body = body
        self._settings = settings
        self._host = host or ThisHost()
        self._environments = PreparedFolder(environments)
        self._token = CredentialFile(state, credential)
        self._images = (
            TaskImages(Fetcher(state / "blobs", body.images), body.images) if body.images else None
        )
        self._ailments: Ailments | None = None
        self._certificates: Certificates | None = None
        self._desk: Desk | None = None
        self.ready = asyncio.Event()
        self.book: Book | None = None

    async def run(self) -> None:
        """Until cancelled. Tasks go on without us, kept by their shims."""
        bus = await self._connected()
        try:
            await self._serve(bus)
        finally:
            await bus.close()

    async def _connected(self) -> Bus:
        """Tries for ever; shims hold the deadlines meanwhile.

        Raises:
            Unauthenticated: the broker refuses this node's credential.
        """
        url = self._settings.nats_url or self._credential.nats_url
        asked = False
        while True:
            try:
                return await Bus.connect(
                    url,
                    creds=self._state / "node.creds" if self._credential.creds else None,
                    name="agent",
                    prefix=self._credential.subject_prefix or subjects.DEFAULT_PREFIX,
                    node_id=self._credential.node_id,
                    timeout_s=_CONNECT_S,
                )
            except Unreachable as fault:
                _LOG.warning("waiting for the mesh: %s", fault)
            except Unauthenticated:
                if asked or not self._credential.creds:
                    raise
                _LOG.warning("the broker refuses the credential; asking the gateway for another")
                await self._token.ask_the_door()
                asked = True

    async def _serve(self, bus: Bus) -> None:
        settings, body = self._settings, self._body
        patience_s = min(10.0, max(2.0, settings.renew_retry_ms / 1000))
        signer = signer_of(self._state / "node.creds") if self._credential.creds else None
        scheduler = SchedulerCalls(bus, patience_s, signer)
        files = body.files or LeaseFiles(
            self._state, kept_bytes=settings.kept_bytes, kept_hours=settings.kept_hours
        )
        devices = [device.id for device in body.facts.devices]
        store = SpoolFile(self._state / "spool.sqlite")
        book = await asyncio.to_thread(
            recover, store, self._host, scheduler, body.sandboxes, files, devices, RandomIds()
        )
        self.book = book
        watch = Watch(book.work)
        scrubber = await asyncio.to_thread(
            Scrubber, book, body.sandboxes, files, SystemClock(), keeper=body.keeper
        )
        reporter = self._reporter(scheduler, book)
        if self._images is not None:
            await self._images.held()
        self._ailments = Ailments(self._state, body.keeper, scrubber.ailments, reporter.again)
        self._certificates = Certificates(
            self._state, body.facts.devices, body.keeper, SystemClock(), self._ailments.judged
        )
        scrubber.before = self._certificates.measure
        stale = self._certificates.due() - {
            x for row in book.spool.rows.values() for x in row.devices
        }
        await book.change(lambda spool: lease.quarantined(spool, stale))
        server = bus.server(interceptors=(FaultsToStatus(),))
        task_files = TaskFiles(book, files)
        files_pb2_grpc.add_TaskFileServiceServicer_to_server(task_files, server)
        desk = self._desk = Desk(self._state, body.entrance, self._host, Limits())
        sessions = TaskSessions(book, desk, task_files, self._credential.node_id)
        session_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
        await server.start()
        stop_hints = on_hint(bus, lambda _generation: book.news.ring())

        def connected() -> None:
            book.ask_billing = True
            book.work.ring()
            book.news.ring()
            reporter.again()

        bus.on_connected(connected)
        try:
            await self._loop(bus, scheduler, book, files, watch, reporter, scrubber)
        finally:
            stop_hints()
            await server.stop(_STOP_S)
            watch.close()
            await book.close()

    async def _loop(
        self,
        bus: Bus,
        scheduler: SchedulerCalls,
        book: Book,
        files: Files,
        watch: Watch,
        reporter: Reporter,
        scrubber: Scrubber,
    ) -> None:
        body, tick_ms = self._body, self._settings.slow_tick_ms
        emulated = body.facts.emulated
        devices = [device.id for device in body.facts.devices]
        signer = signer_of(self._state / "node.creds") if self._credential.creds else None
        preparer = self._preparer(bus, files)
        pool = self._pool(book, files, preparer)
        reconciler = self._reconciler(bus, book, files, watch, scrubber, signer, preparer, pool)
        syncer = Syncer(book, self._host, scheduler, files, devices, tick_ms, _jitter(), pool.wish)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            if not emulated:
                backfill = self._backfill(bus, stack)
                observer = await self._observer(lambda: reconciler.cgroups, stack, backfill)
                group.create_task(backfill.run(), name="backfill")
                group.create_task(observer.run(), name="observe")
                real = [device.id for device in body.facts.devices if not device.emulated]
                tally = EnergyTally(lambda: observer.watched, real)
                group.create_task(tally.run(book), name="energy")
            health = Health(self._state, book, body.lending.agent_version)
            group.create_task(health.run(), name="health")
            group.create_task(reporter.run(), name="report")
            group.create_task(syncer.run(), name="sync")
            group.create_task(reconciler.run(), name="reconcile")
            group.create_task(scrubber.prune(), name="prune")
            if not emulated:
                group.create_task(pool.run(), name="warm")
            if self._ailments is not None and not emulated:
                group.create_task(self._ailments.run(), name="ailments")
            if self._credential.creds:
                group.create_task(self._renewal(bus, scheduler).run(), name="renew")
            await reporter.reported.wait()
            self.ready.set()
            _LOG.info("the node serves", extra={"node": self._credential.node_id})

    def _backfill(self, bus: Bus, stack: contextlib.AsyncExitStack) -> Backfill:
        """Telemetry to the mesh, and to disk while that is away."""
        path, quota_bytes = self._state / "telemetry.sqlite", self._settings.telemetry_spool_bytes
        spool = TelemetrySpool(path, self._host.now().boot_id, quota_bytes)
        stack.callback(spool.close)
        clock = SystemClock()
        backfill = Backfill(
            bus,
            spool,
            lambda: self._host.now().boottime_ns // 1_000_000,
            lambda: round(clock.wall().timestamp() * 1000),
        )
        stack.callback(backfill.close)
        return backfill

    async def _observer(
        self, leases: Leases, stack: contextlib.AsyncExitStack, backfill: Backfill
    ) -> Observer:
        """Telemetry of this host: to the mesh, and to the local page where one is wanted."""
        facts, files = self._body.facts, KeptFiles()
        stack.callback(files.close)
        if self._body.host is not None:
            for zone in energy_zones():
                number = await asyncio.to_thread(self._body.host.open_energy, zone)
                if number is not None:
                    files.keep(energy_file(zone), number)
        offers = [backfill.offer]
        if self._settings.metrics_port:
            page = MetricsPage()
            server = await page.serve(self._settings.metrics_port)
            stack.callback(server.close)
            offers.append(page.offer)
        identity = NodeIdentity(
            facts.host.hostname,
            self._body.lending.agent_version,
            facts.host.boot_id,
            tuple(
                DeviceIdentity(
                    x.id, chip_name(x.chip, x.memory_bytes), x.vendor, x.bus, x.memory_bytes
                )
                for x in facts.devices
            ),
        )
        place = place_of(self._settings.device_root, self._settings.device_families)
        sampler = DeviceSampler(facts.devices, _looks(stack, place))
        if self._ailments is not None:
            self._ailments.watched = sampler.watched
        return Observer(
            identity,
            sampler,
            HostSampler(files, str(self._state)),
            LeaseSampler(files),
            leases,
            (self._host, SystemClock()),
            offers,
        )

    def _renewal(self, bus: Bus, scheduler: SchedulerCalls) -> Renewal:
        def connected() -> bool:
            return bus.connected

        return Renewal(self._token, scheduler.renew, connected, SystemClock(), _jitter())

    def _reporter(self, scheduler: SchedulerCalls, book: Book) -> Reporter:
        body = self._body
        return Reporter(
            scheduler,
            lambda: marked(
                inventory(
                    body.facts,
                    body.lending,
                    self._environments.names(),
                    book.spool.dirty,
                    book.strangers,
                    self._images.known if self._images else (),
                ),
                body.facts.devices,
                self._ailments.now() if self._ailments is not None else {},
                self._certificates.now() if self._certificates is not None else {},
            ),
            self._settings.slow_tick_ms,
            self._site,
        )

    def _reconciler(
        self,
        bus: Bus,
        book: Book,
        files: Files,
        watch: Watch,
        scrubber: Scrubber,
        signer: Signer | None,
        preparer: Preparer,
        pool: WarmPool,
    ) -> Reconciler:
        settings, sandboxes = self._settings, self._body.sandboxes
        billing = BillingCalls(bus, _SETTLE_S, signer)
        settler = Settler(
            book,
            self._host,
            sandboxes,
            billing,
            settings.renew_retry_ms,
            _jitter(),
            settings.report_ms,
        )
        return Reconciler(
            book,
            self._host,
            sandboxes,
            files,
            preparer,
            settler,
            scrubber,
            watch,
            TaskSpans(SpanSender(bus), SystemClock()),
            settings.grace_ms,
            self._unused,
            {x.id: x.part_of for x in self._body.facts.devices if x.part_of and not x.apart},
            pool=pool,
        )

    def _preparer(self, bus: Bus, files: Files) -> Preparer:
        bundles = BundleFolder(self._state / "bundles", BundleCalls(bus).read)
        shell = read_host().shell
        return Preparer(
            self._credential.node_id, files, bundles, self._environments, shell, self._images
        )

    def _pool(self, book: Book, files: Files, preparer: Preparer) -> WarmPool:
        settings = self._settings
        return WarmPool(
            book,
            self._host,
            self._body.warm if settings.warm_count else None,
            files,
            preparer,
            self._environments,
            self._images,
            Bounds(settings.warm_count, settings.warm_memory_bytes),
        )

    def _unused(self, row: Row, task: Task, now_ns: int) -> Overtime | None:
        """Whether nobody has had a session in a task for its idle_stop."""
        desk = self._desk
        if desk is None:
            return None
        return idle(row, task, desk.visits(row.lease_id), desk.since_ns, now_ns)


def _looks(stack: contextlib.AsyncExitStack, place: Place) -> Callable[[DeviceFacts], Look]:
    """How each device is looked at: by its vendor's library where there is one, else by files."""
    nvml = Nvml.open(place.library(NVML))
    if nvml is not None:
        stack.callback(nvml.close)
    families = {(x.kind, x.family): x for x in place.known()}

    def look(device: DeviceFacts) -> Look:
        family = families[device.kind, device.family]
        if family.lister == "nvml" and nvml is not None:
            return by_nvml(nvml)
        return by_files(family, place.root)

    return look


def _jitter() -> random.Random:
    return random.Random()  # noqa: S311 - spreads questions in time
