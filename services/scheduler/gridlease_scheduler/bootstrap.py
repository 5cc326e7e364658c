"""Builds the scheduler from its parts and runs it: the one place that knows every class."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator

from gridlease.scheduler.v1 import (
    capacity_pb2_grpc,
    fleet_pb2_grpc,
    job_pb2_grpc,
    sync_pb2_grpc,
)
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Fault
from gridlease_kernel.ids import RandomIds
from gridlease_mesh import observe
from gridlease_mesh.bus import Bus
from gridlease_mesh.feed import Feed as MeshFeed
from gridlease_mesh.feed import FeedTerms, follow
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.lifetime import ended, patiently, ready
from gridlease_mesh.outbox import Relay
from gridlease_mesh.server import MeshServer
from gridlease_mesh.spans import hear_spans
from gridlease_mesh.validation import ValidateRequests
from gridlease_store.connect import connect
from gridlease_store.migrate import migrate
from gridlease_store.outbox import PostgresOutbox
from gridlease_store.pool import Pool, connect_pool

from .adapters import catalogue
from .adapters.aside import PostgresAside
from .adapters.billing import MeshBilling, MeshMarket
from .adapters.credentials import NoCredentials, SignedCredentials
from .adapters.events import PostgresHistory
from .adapters.leadership import Leadership
from .adapters.monotonic import LaterClock
from .adapters.notices import Notices
from .adapters.optimiser import ChildOptimiser
from .adapters.passports import Passports
from .adapters.prices import MeshPrices
from .adapters.store import PostgresStore
from .advise import Advise
from .cancel import Cancel
from .close import Close
from .credential import Renew, Revoke
from .cycle import Cycle, CycleParts
from .domain.chips import Catalogue
from .enrol import CreateToken, Enrol
from .evict import Drain, Evict
from .explain import Explain
from .feed import Feed
from .inventory import ReportInventory
from .jobs import Jobs
from .leader import Leader
from .links import Links
from .lost import Lost
from .maintenance import EndMaintenance
from .market import TellMarket
from .nodes import Fleet
from .ports import Credentials
from .preload import Preloads
from .preview import Preview
from .quotas import Quotas
from .reservations import Reservations
from .rpc.capacity import CapacityServicer, CapacityUses
from .rpc.fleet import FleetServicer, FleetUses
from .rpc.jobs import JobServicer, JobUses
from .rpc.sync import SyncServicer
from .settings import Settings
from .sites import Sites
from .slow import Slow, SlowParts
from .submit import Submit
from .sync import Sync
from .wake import Wake
from .wire.jobs import Defaults

_LOG = logging.getLogger(__name__)
ROOM = "scheduler"
ROLE = "gl_scheduler"
_SYNC = "gridlease.scheduler.v1.SyncService"
_STOP_S = 2.0
_KEEP_SENT_S = 3_600.0
_PRUNE_S = 60.0


class _Parts:
    """What the loops and the servicers share."""

    def __init__(
        self, settings: Settings, pool: Pool, bus: Bus, observer: observe.Observer
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.bus = bus
        self.observer = observer
        self.catalogue: Catalogue = catalogue.load()
        self.ids = RandomIds()
        self.clock = LaterClock(SystemClock())
        self.store = PostgresStore(pool, disconnected_ms=settings.disconnected_after_ms)
        self.notices = Notices(settings.postgres_dsn, ROOM, role=ROLE)
        channel = bus.channel(interceptors=observer.client())
        signing = settings.nats_account_seed is not None
        passports = Passports(pool, signing=signing)
        self.billing = MeshBilling(channel, passports, self.catalogue)
        self.market = MeshMarket(channel, passports)
        self.prices = MeshPrices(channel, self.clock)
        self.terms = settings.terms()


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[asyncio.Future[None]]:
    """The scheduler, serving on the mesh for as long as the block runs.

    The future fails when a part of it has failed by a bug: then the process should end.
    """
    async with contextlib.AsyncExitStack() as stack:
        observer = observe.set_up(ROOM, os.environ)
        stack.callback(observer.close)
        pool = await _database(settings)
        stack.callback(pool.terminate)
        bus = await Bus.connect(
            settings.nats_url,
            creds=settings.nats_creds,
            name=ROOM,
            prefix=settings.subject_prefix,
            timeout_s=None,
        )
        stack.push_async_callback(bus.close)
        parts = _Parts(settings, pool, bus, observer)
        if observer.spans is not None:  # the nodes have no exporter of their own
            stack.callback(hear_spans(bus, observer.spans.export, queue=ROOM))
        server = _server(parts)
        await server.start()
        stack.push_async_callback(server.stop, _STOP_S)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for work in (parts.notices.run(), _lead(parts), _tell(parts)):
            task = asyncio.create_task(work)
            task.add_done_callback(lambda task: _note(task, failed))
            stack.push_async_callback(ended, task)
        stack.enter_context(ready(settings.ready_file))
        _LOG.info("the scheduler serves")
        yield failed
        _LOG.info("the scheduler stops")


def _server(parts: _Parts) -> MeshServer:
    settings = parts.settings
    observing = parts.observer.server()
    server = parts.bus.server(
        queue=ROOM, up=[_SYNC], interceptors=[*observing, FaultsToStatus(), ValidateRequests()]
    )
    defaults = Defaults(
        notice_ms=settings.notice_ms,
        lost_after_ms=settings.lost_after_ms,
        max_attempts=settings.max_attempts,
    )
    jobs = JobUses(
        submit=Submit(parts.store, parts.catalogue, parts.ids),
        cancel=Cancel(parts.store),
        wake=Wake(parts.store),
        jobs=Jobs(parts.store, parts.notices),
        feed=Feed(parts.store, parts.notices),
        explain=Explain(parts.store, parts.catalogue, parts.prices),
        plan=Preview(parts.store, parts.catalogue, parts.prices),
        defaults=defaults,
    )
    credentials = _credentials(settings)
    fleet = FleetUses(
        fleet=Fleet(parts.store),
        sites=Sites(parts.store),
        catalogue=parts.catalogue,
        create_token=CreateToken(parts.store, parts.ids, SystemClock()),
        enrol=Enrol(parts.store, credentials),
        revoke=Revoke(parts.store, credentials),
        drain=Drain(parts.store, Evict(parts.store)),
        node_nats_url=settings.node_nats_url or settings.nats_url,
        subject_prefix=settings.subject_prefix,
        lost_after_ms=settings.lost_after_ms,
    )
    sync = SyncServicer(
        Sync(parts.store),
        ReportInventory(parts.store, parts.catalogue),
        Renew(parts.store, credentials),
        settings.start_by_ms,
        Preloads(_aside(settings), SystemClock()),
    )
    capacity = CapacityUses(
        quotas=Quotas(parts.store, parts.catalogue),
        sites=Sites(parts.store),
        links=Links(parts.store),
        reservations=Reservations(parts.store, parts.catalogue, parts.ids),
    )
    job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(jobs), server)
    capacity_pb2_grpc.add_CapacityServiceServicer_to_server(CapacityServicer(capacity), server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetServicer(fleet), server)
    sync_pb2_grpc.add_SyncServiceServicer_to_server(sync, server)
    return server


def _credentials(settings: Settings) -> Credentials:
    if settings.nats_account_seed is None:
        return NoCredentials()
    ttl_s = max(1, settings.node_credential_ttl_ms // 1_000)
    return SignedCredentials(settings.nats_account_seed, settings.subject_prefix, ttl_s)


async def _lead(parts: _Parts) -> None:
    """Campaign, lead, and campaign again, for as long as the process serves."""
    settings = parts.settings
    leadership = Leadership(settings.postgres_dsn, ROOM, f"pid {os.getpid()}", role=ROLE)
    current: list[Lost] = []

    def heard_again() -> None:
        for lost in current:
            lost.hear_anew()

    parts.bus.on_connected(heard_again)
    while True:
        async with leadership.term() as term, _feeding(parts):
            lost = Lost(parts.store, parts.clock, parts.terms)
            current[:] = [lost]
            optimiser = ChildOptimiser(settings.optimiser_timeout_ms / 1e3)
            try:
                await _leader(parts, term.epoch, lost, optimiser).run(term.over)
            finally:
                await optimiser.close()


def _aside(settings: Settings) -> PostgresAside:
    return PostgresAside(
        settings.postgres_dsn, ROOM, role=ROLE, disconnected_ms=settings.disconnected_after_ms
    )


def _leader(parts: _Parts, epoch: int, lost: Lost, optimiser: ChildOptimiser) -> Leader:
    """The loops of one term, with what they remember for as long as it lasts."""
    settings, evict, advise = parts.settings, Evict(parts.store), Advise(optimiser)
    aside = _aside(settings)
    slow = Slow(
        SlowParts(parts.store, aside, evict, advise, parts.catalogue, parts.clock, settings.slow())
    )
    cycle = CycleParts(
        parts.store,
        parts.billing,
        parts.prices,
        evict,
        parts.catalogue,
        parts.ids,
        parts.clock,
        lambda: slow.lookup,
    )
    window_ms = settings.spot_window_ms
    return Leader(
        epoch,
        Cycle(cycle),
        Close(parts.store, parts.billing, parts.clock, parts.terms, parts.catalogue),
        lost,
        EndMaintenance(parts.store),
        slow,
        TellMarket(parts.store, aside, parts.market, parts.catalogue, window_ms),
        parts.notices,
        settings.slow_tick_ms / 1e3,
    )


@contextlib.asynccontextmanager
async def _feeding(parts: _Parts) -> AsyncIterator[None]:
    """Keep the mesh's event feed as far as the database; one process does, the leader."""
    settings = parts.settings
    terms = FeedTerms(prefix=settings.subject_prefix, replicas=settings.nats_replicas)
    feed = MeshFeed(parts.bus, ROOM, PostgresHistory(parts.pool), terms)
    async with parts.notices.watch("events") as ticket:
        tasks = [asyncio.create_task(feed.run()), asyncio.create_task(follow(feed, ticket.wait))]
        try:
            yield
        finally:
            for task in tasks:
                await ended(task)


async def _tell(parts: _Parts) -> None:
    """Relay the outbox: hints to nodes; forget what was sent."""
    outbox = PostgresOutbox(parts.pool, parts.settings.postgres_dsn, ROOM, role=ROLE)
    relay = Relay(outbox, parts.bus)
    outbox.on_wake(relay.wake)
    relaying = asyncio.create_task(relay.run())
    try:
        while True:
            await asyncio.sleep(_PRUNE_S)
            with contextlib.suppress(Fault):
                await outbox.prune(_KEEP_SENT_S)
    finally:
        await ended(relaying)
        await outbox.close()


async def _database(settings: Settings) -> Pool:
    """A pool on a schema that is up to date; waits for a database that starts."""

    async def once() -> Pool:
        # Migrating waits a minute in silence; this says at once that it has to.
        probe = await connect(settings.owner_dsn, wait_s=0.0)
        await probe.close()
        applied = await migrate(
            settings.owner_dsn, ROOM, "gridlease_scheduler", role=ROLE, login=True
        )
        _LOG.info("schema is up to date", extra={"applied": applied})
        return await connect_pool(
            settings.postgres_dsn,
            schema=ROOM,
            role=ROLE,
            max_size=settings.scheduler_connections,
        )

    return await patiently("the database", once)


def _note(task: asyncio.Task[None], failed: asyncio.Future[None]) -> None:
    """These tasks run for ever: one that ends has failed."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not failed.done():
        failed.set_exception(error)
