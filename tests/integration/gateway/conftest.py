"""A gateway on real PostgreSQL and NATS, with scripted rooms behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from pathlib import Path

import grpc.aio
import pytest
from gridlease.agent.v1 import files_pb2_grpc
from gridlease.billing.v1 import account_pb2_grpc, receivable_pb2_grpc, report_pb2_grpc
from gridlease.gateway.v1 import contract_pb2_grpc, gateway_pb2_grpc
from gridlease.scheduler.v1 import capacity_pb2_grpc, fleet_pb2_grpc, job_pb2_grpc
from gridlease_gateway.bootstrap import gateway
from gridlease_gateway.settings import Settings
from gridlease_mesh.bus import Bus
from gridlease_mesh.interceptors import FaultsToStatus

from tests.integration.gateway.rooms import Agent, Billing, Capacity, Scheduler


@dataclasses.dataclass
class World:
    """Everything that a test may turn."""

    settings: Settings
    scheduler: Scheduler
    billing: Billing
    agent: Agent
    keys: dict = dataclasses.field(default_factory=dict)
    gateway: object = None
    channel: object = None

    def stub(self, service, key="tenant_key"):
        """A stub whose calls carry one of the keys (None: no key)."""
        secret = self.keys.get(key, key)
        metadata = (("authorization", f"Bearer {secret}"),) if secret else ()
        where = contract_pb2_grpc if hasattr(contract_pb2_grpc, f"{service}Stub") else None
        plain = getattr(where or gateway_pb2_grpc, f"{service}Stub")(self.channel)
        return _Keyed(plain, metadata)


class _Keyed:
    def __init__(self, stub, metadata):
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, name):
        method = getattr(self._stub, name)
        return lambda request, **options: method(
            request, metadata=self._metadata, timeout=options.pop("timeout", 20), **options
        )


@contextlib.asynccontextmanager
async def rooms(nats, prefix):
    """The scripted rooms on the mesh."""
    scheduler, billing, agent = Scheduler(), Billing(), Agent()
    async with contextlib.AsyncExitStack() as stack:
        for name, node in (("scheduler", None), ("billing", None), ("agent", "n1")):
            creds = nats.service_creds(name)
            bus = await Bus.connect(nats.url, creds=creds, name=name, prefix=prefix, node_id=node)
            stack.push_async_callback(bus.close)
            server = bus.server(interceptors=[FaultsToStatus()])
            if name == "scheduler":
                job_pb2_grpc.add_JobServiceServicer_to_server(scheduler, server)
                fleet_pb2_grpc.add_FleetServiceServicer_to_server(scheduler, server)
                capacity_pb2_grpc.add_CapacityServiceServicer_to_server(Capacity(), server)
            elif name == "billing":
                account_pb2_grpc.add_AccountServiceServicer_to_server(billing, server)
                report_pb2_grpc.add_ReportServiceServicer_to_server(billing.reports, server)
                receivable_pb2_grpc.add_ReceivableServiceServicer_to_server(
                    billing.receivables, server
                )
            else:
                files_pb2_grpc.add_TaskFileServiceServicer_to_server(agent, server)
            await server.start()
            stack.push_async_callback(server.stop, None)
        yield scheduler, billing, agent


@pytest.fixture
async def world(nats, database, state_folder: Path):
    """A gateway that serves, its first keys, and a channel to it."""
    prefix = f"gl{secrets.token_hex(4)}"
    settings = Settings(
        nats_url=nats.url,
        nats_creds=nats.service_creds("gateway"),
        postgres_dsn=database,
        subject_prefix=prefix,
        gateway_listen="127.0.0.1:0",
        client_file=state_folder / "client.json",
        bundles=state_folder / "bundles",
        gateway_patience_ms=5_000,
        gateway_webhook_local=True,
    )
    async with rooms(nats, prefix) as (scheduler, billing, agent), gateway(settings) as door:
        keys = json.loads(settings.client_file.read_text())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
            yield World(settings, scheduler, billing, agent, keys, door, channel)
