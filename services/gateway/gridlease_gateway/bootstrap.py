"""Puts the gateway together; the one place that knows every class."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import grpc.aio
from gridlease.gateway.v1 import bundle_pb2, bundle_pb2_grpc, gateway_pb2
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Unreachable
from gridlease_kernel.ids import RandomIds
from gridlease_mesh import observe
from gridlease_mesh.bus import Bus
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.lifetime import ended, ready
from gridlease_mesh.validation import ValidateRequests
from gridlease_store.migrate import migrate
from gridlease_store.pool import Pool, connect_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gridlease_gateway import first_start
from gridlease_gateway.adapters import edge
from gridlease_gateway.adapters.folder import BundleFolder
from gridlease_gateway.adapters.poster import HttpPoster
from gridlease_gateway.adapters.postgres import (
    PostgresAccess,
    PostgresAudit,
    PostgresBundles,
    PostgresFirstStart,
)
from gridlease_gateway.adapters.webhook_store import PostgresWebhooks
from gridlease_gateway.audit import Auditor
from gridlease_gateway.budget import BudgetCheck, Prices
from gridlease_gateway.calls import Call
from gridlease_gateway.domain.rates import Rate
from gridlease_gateway.door import Door
from gridlease_gateway.event_feed import EventFeed
from gridlease_gateway.guard import Guard
from gridlease_gateway.inside import Inside
from gridlease_gateway.methods import Method, public_methods, table
from gridlease_gateway.rpc.access import Access
from gridlease_gateway.rpc.billing import Billing
from gridlease_gateway.rpc.bundles import BundleContent, Bundles
from gridlease_gateway.rpc.capacity import Capacity
from gridlease_gateway.rpc.contracts import Contracts, Suppliers
from gridlease_gateway.rpc.files import Files
from gridlease_gateway.rpc.fleet import Fleet
from gridlease_gateway.rpc.invoices import Invoices
from gridlease_gateway.rpc.jobs import Jobs
from gridlease_gateway.rpc.receivables import Receivables
from gridlease_gateway.rpc.reports import Reports
from gridlease_gateway.rpc.sessions import Sessions
from gridlease_gateway.rpc.webhooks import Webhooks
from gridlease_gateway.settings import Settings
from gridlease_gateway.webhooks import Deliverer

_LOG = logging.getLogger(__name__)
SCHEMA = "gateway"
_STOP_S = 2.0
_STOP_ALL_S = 4.0
_PAUSE_S = 1.0


class Gateway:
    """A running gateway: ``port`` is the one that it serves on."""

    def __init__(self, port: int, methods: Mapping[str, Method], auditor: Auditor) -> None:
        self.port = port
        self.methods = methods
        self.auditor = auditor


@contextlib.asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Serve for as long as the block runs.

    Raises:
        Fault: it cannot start, with what to do.
    """
    async with contextlib.AsyncExitStack() as stack:
        observer = observe.set_up("gateway", os.environ)
        stack.callback(observer.close)
        server = _edge_server(settings, observer)
        port = edge.listen(server, settings)  # first of all: a taken port is the likeliest trouble
        pool = await _database(settings)
        stack.push_async_callback(pool.close)
        bus = await _mesh(settings)
        stack.push_async_callback(bus.close)
        patience_s = settings.gateway_patience_ms / 1_000
        inside = Inside(bus, patience_s=patience_s, interceptors=observer.client())
        files = BundleFolder(settings.bundles)
        await asyncio.to_thread(files.prepare)
        methods, door, auditor = _assemble(settings, pool, inside, files)
        await _first_start(settings, pool, inside, port, stack)
        await _background(stack, auditor.run())
        poster = HttpPoster(local=settings.gateway_webhook_local)
        hooks = Deliverer(EventFeed(inside), PostgresWebhooks(pool), poster, SystemClock())
        await _background(stack, hooks.run())
        mesh = bus.server(
            up=[bundle_pb2.DESCRIPTOR.services_by_name["BundleContentService"].full_name],
            interceptors=[*observer.server(), FaultsToStatus(), ValidateRequests()],
        )
        bundle_pb2_grpc.add_BundleContentServiceServicer_to_server(BundleContent(files), mesh)
        await mesh.start()
        stack.push_async_callback(mesh.stop, _STOP_S)
        await _open(server, door, methods)
        stack.push_async_callback(server.stop, _STOP_S)
        _LOG.info("the door is open", extra={"port": port})
        yield Gateway(port, methods, auditor)


def _edge_server(settings: Settings, observer: observe.Observer) -> grpc.aio.Server:
    # The table is the same for every gateway; what answers is added once it exists.
    paths = {
        name: f"/{it.containing_service.full_name}/{it.name}"
        for name, it in public_methods().items()
    }
    return grpc.aio.server(
        interceptors=[*observer.server(), edge.OnlyTheTable(frozenset(paths.values()))],
        options=edge.options(settings),
        maximum_concurrent_rpcs=settings.gateway_max_calls,
    )


async def _database(settings: Settings) -> Pool:
    async def bring_up() -> Pool:
        await migrate(settings.owner_dsn, SCHEMA, "gridlease_gateway")
        same = settings.owner_dsn == settings.postgres_dsn
        return await connect_pool(
            settings.postgres_dsn, schema=SCHEMA, role=f"gl_{SCHEMA}" if same else None
        )

    while True:
        try:
            return await bring_up()
        except Unreachable as fault:
            _LOG.warning("waiting for PostgreSQL: %s", fault.message)
            await asyncio.sleep(_PAUSE_S)


async def _mesh(settings: Settings) -> Bus:
    while True:
        try:
            return await Bus.connect(
                settings.nats_url,
                creds=settings.nats_creds,
                name="gateway",
                prefix=settings.subject_prefix,
            )
        except Unreachable as fault:
            _LOG.warning("waiting for NATS: %s", fault.message)
            await asyncio.sleep(_PAUSE_S)


def _assemble(
    settings: Settings, pool: Pool, inside: Inside, files: BundleFolder
) -> tuple[dict[str, Method], Door, Auditor]:
    ids, clock = RandomIds(), SystemClock()
    access, index = PostgresAccess(pool), PostgresBundles(pool)
    rate = Rate(settings.gateway_rate_per_s, settings.gateway_rate_burst)
    guard = Guard(access, clock, rate=rate, max_streams=settings.gateway_max_streams)
    auditor = Auditor(PostgresAudit(pool))
    prices = Prices(inside)
    door = Door(
        guard,
        auditor,
        call_s=settings.gateway_call_ms / 1_000,
        stream_s=settings.gateway_stream_ms / 1_000,
    )
    webhooks = Webhooks(
        PostgresWebhooks(pool), EventFeed(inside), ids, local=settings.gateway_webhook_local
    )
    rooms: dict[str, tuple[object, ...]] = {
        "JobService": (
            Jobs(inside, access, index, BudgetCheck(prices), ids),
            Files(inside),
            Bundles(files, index),
        ),
        "SessionService": (Sessions(inside),),
        "FleetService": (Fleet(inside, prices),),
        "CapacityService": (Capacity(inside, access, ids),),
        "BillingService": (
            Billing(inside, prices, access, ids),
            Invoices(inside, access, ids),
        ),
        "ReportService": (Reports(inside), webhooks),
        "WebhookService": (webhooks,),
        "ReceivableService": (Receivables(inside, access, ids),),
        "SupplierService": (Suppliers(inside, access, ids),),
        "ContractService": (Contracts(inside, access, ids),),
        "AccessService": (Access(access, guard, ids, clock),),
    }
    return table(_handlers(rooms)), door, auditor


def _handlers(
    rooms: Mapping[str, tuple[object, ...]],
) -> dict[str, Callable[[Call, Any], Any]]:
    """What answers each public method: ``CreateJob`` is somebody's ``create_job``."""
    found: dict[str, Callable[[Call, Any], Any]] = {}
    for name, method in public_methods().items():
        service = method.containing_service.name
        words = "".join(f"_{it.lower()}" if it.isupper() else it for it in method.name).lstrip("_")
        for room in rooms[service]:
            if hasattr(room, words):
                found[name] = getattr(room, words)
    return found


async def _first_start(
    settings: Settings, pool: Pool, inside: Inside, port: int, stack: contextlib.AsyncExitStack
) -> None:
    store = PostgresFirstStart(pool)
    endpoint = _endpoint(settings, port)
    access, ids = PostgresAccess(pool), RandomIds()
    await first_start.make_keys(store, access, ids, endpoint, settings.client_file)
    await _background(stack, first_start.pay_in(inside, store, settings.first_credit_nano))


def _endpoint(settings: Settings, port: int) -> str:
    """Where clients on this host reach us."""
    host, _ = settings.address()
    reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    scheme = "https://" if settings.gateway_tls_cert else ""
    return f"{scheme}{reach}:{port}"


async def new_keys(settings: Settings) -> None:
    """Write new first keys to the client file, for an operator who lost it.

    Raises:
        Precondition: there was no first start, or the file cannot be written.
    """
    pool = await _database(settings)
    try:
        endpoint = _endpoint(settings, settings.address()[1])
        access = PostgresAccess(pool)
        await first_start.replace_keys(access, RandomIds(), endpoint, settings.client_file)
    finally:
        await pool.close()


async def _open(server: grpc.aio.Server, door: Door, methods: Mapping[str, Method]) -> None:
    server.add_generic_rpc_handlers(edge.handlers(door, methods))
    checks: Any = health.aio.HealthServicer()  # type: ignore[attr-defined] # a re-export
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)  # type: ignore[no-untyped-call] # no stubs
    services = [it.full_name for it in gateway_pb2.DESCRIPTOR.services_by_name.values()]
    named = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(named, server)  # type: ignore[no-untyped-call] # no stubs
    await server.start()
    for name in ("", *services):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)


async def _background(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)

    stack.push_async_callback(ended, task)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Fault: it cannot start, with what to do.
    """
    if settings.ready_file is not None:
        settings.ready_file.unlink(missing_ok=True)  # one that was killed left it
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_until(stop, settings))
    stopping = asyncio.create_task(stop.wait())
    # A stop must also end a start that still waits for PostgreSQL or NATS.
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    done, _ = await asyncio.wait({serving}, timeout=_STOP_ALL_S)
    if not done:
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _until(stop: asyncio.Event, settings: Settings) -> None:
    async with gateway(settings):
        with ready(settings.ready_file):
            await stop.wait()
        _LOG.info("stopping")
