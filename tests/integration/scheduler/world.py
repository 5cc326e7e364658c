# ruff: noqa: N802 - methods are named in the proto
"""A scheduler on real PostgreSQL and NATS, with a scripted billing and scripted agents."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import replace

import grpc
from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease.scheduler.v1 import (
    capacity_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    sync_pb2,
    sync_pb2_grpc,
)
from gridlease.type.v1 import fleet_pb2 as type_fleet_pb2
from gridlease.type.v1 import job_pb2 as type_job_pb2
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import new_user_key, write_creds
from gridlease_scheduler.bootstrap import serving
from gridlease_scheduler.settings import Settings
from gridlease_testkit.waiting import eventually

PROJECT = "projects/demo"
TENANT = "tenants/demo"
GIB = 2**30
_NUMBERS = itertools.count(1)


class FakeBilling(lease_pb2_grpc.LeaseServiceServicer):
    """Answers as it is told to, and keeps count."""

    def __init__(self):
        self.orders = {}
        self.closed = {}
        self.refuse = {}  # job -> (reason, hint)
        self.wait_ms = 0
        self.down = False
        self.asked_to_close = 0
        self.told = []  # (window's end, use by chip)

    async def Authorize(self, request, context):
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "billing is down")
        answers = []
        for order in request.orders:
            reason, hint = self.refuse.get(order.job, ("", ""))
            if not reason:
                self.orders[order.lease] = order
            answers.append(
                lease_pb2.LeaseAuthorization(
                    lease=order.lease,
                    ok=not reason,
                    rate_nano_per_hour=0 if reason else 48_000_000,
                    reason=reason,
                    hint=hint,
                )
            )
        return lease_pb2.AuthorizeResponse(authorizations=answers)

    async def Close(self, request, context):
        self.asked_to_close += 1
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "billing is down")
        for closure in request.closures:
            self.closed[closure.lease] = closure
        return lease_pb2.CloseResponse(
            closed=[
                lease_pb2.LeaseClosed(lease=closure.lease, wait_ms=self.wait_ms)
                for closure in request.closures
            ]
        )

    async def ReportUtilization(self, request, context):
        end_ms = request.window_end_time.ToMilliseconds()
        self.told.append((end_ms, {use.chip: use for use in request.chips}))
        return lease_pb2.ReportUtilizationResponse()


class Agent:
    """A node that says what the test makes it say."""

    def __init__(self, node_id, bus):
        self.node_id = node_id
        self.bus = bus
        self.stub = sync_pb2_grpc.SyncServiceStub(bus.channel())
        self.spool_id = f"spool-{next(_NUMBERS)}"
        self.generation = 0
        self.leases = {}
        self.devices = {}

    async def report(
        self, *, cpu_milli=4_000, memory=8 * GIB, chips=(), emulated=False, runtimes=(),
        ailments=None, **facts,
    ):  # fmt: skip
        devices = [
            type_fleet_pb2.Device(
                id=f"gpu-{index}",
                chip=chip,
                vendor="nvidia",
                memory_bytes=80 * GIB,
                state=type_fleet_pb2.DEVICE_STATE_CLEAN,
                emulated=emulated,
                ailment=(ailments or {}).get(f"gpu-{index}", ""),
            )
            for index, chip in enumerate(chips)
        ]
        self.devices = {device.id: type_fleet_pb2.DEVICE_STATE_CLEAN for device in devices}
        inventory = type_fleet_pb2.NodeInventory(
            cpu_chip="cpu-x86-64",
            cpu_milli=cpu_milli,
            memory_bytes=memory,
            disk_bytes=100 * GIB,
            devices=devices,
            runtimes=runtimes,
            sandbox_runtime="noop" if emulated else "crun",
            emulated=emulated,
            hostname=self.node_id,
            **facts,
        )
        return await self.stub.ReportInventory(sync_pb2.ReportInventoryRequest(inventory=inventory))

    async def sync(self):
        request = sync_pb2.SyncNodeRequest(
            spool_id=self.spool_id,
            boot_id="boot-1",
            generation=self.generation,
            leases=list(self.leases.values()),
            devices=[
                sync_pb2.DeviceObservation(device_id=x, state=state)
                for x, state in self.devices.items()
            ],
        )
        answer = await self.stub.SyncNode(request)
        assert answer.generation >= self.generation
        self.generation = answer.generation
        return answer

    async def join(self, **inventory):
        await self.report(**inventory)
        return await self.sync()

    async def given(self):
        """The lease that it is told to run, once there is one."""

        async def asked():
            return (await self.sync()).run

        return (await eventually(asked, what="a lease to run"))[0]

    def see(self, lease, phase, *, running=False, code=None, reason="EXITED", gone=False):
        """What the next sync tells of a lease."""
        seen = sync_pb2.LeaseObservation(
            lease=lease,
            phase=sync_pb2.LeasePhase.Value(f"LEASE_PHASE_{phase}"),
            running=running,
            gone=gone,
        )
        if code is not None:
            seen.exit.exit_code, seen.exit.reason, seen.exit.ran_ns = code, reason, 1_000_000_000
        self.leases[lease] = seen

    async def run(self, lease):
        self.see(lease, "STARTING", running=True)
        return await self.sync()

    async def end(self, lease, code=0, reason="EXITED"):
        self.see(lease, "CLEAN", code=code, reason=reason, gone=True)
        return await self.sync()


class World:
    """Everything that a test needs, on a subject prefix of its own."""

    def __init__(self, nats, dsn, folder):
        self.nats = nats
        self.dsn = dsn
        self.folder = folder
        self.prefix = f"t{next(_NUMBERS)}"
        self.billing = FakeBilling()
        self.stack = contextlib.AsyncExitStack()
        self.schedulers = []
        self.settings = Settings(
            nats_url=nats.url,
            nats_creds=nats.service_creds("scheduler"),
            nats_account_seed=nats.folder / "keys" / "mesh.seed",
            postgres_dsn=dsn,
            subject_prefix=self.prefix,
            slow_tick_ms=300,
            kill_margin_ms=20,
            clock_step_margin_ms=30,
            grant_ms=1_000,
            scheduler_connections=6,
        )

    async def bus(self, name, **more):
        more.setdefault("creds", self.nats.service_creds(name))
        joined = await Bus.connect(self.nats.url, name=name, prefix=self.prefix, **more)
        self.stack.push_async_callback(joined.close)
        return joined

    async def begin(self):
        billing_bus = await self.bus("billing")
        server = billing_bus.server()
        lease_pb2_grpc.add_LeaseServiceServicer_to_server(self.billing, server)
        await server.start()
        self.stack.push_async_callback(server.stop, 0)
        channel = (await self.bus("test")).channel()
        self.jobs = job_pb2_grpc.JobServiceStub(channel)
        self.fleet = fleet_pb2_grpc.FleetServiceStub(channel)
        self.capacity = capacity_pb2_grpc.CapacityServiceStub(channel)

    async def start(self, **changes):
        """Another instance of the scheduler in this process; its stop."""
        stop = asyncio.Event()
        up = asyncio.Event()

        async def run():
            async with serving(replace(self.settings, **changes)):
                up.set()
                await stop.wait()

        task = asyncio.create_task(run())
        self.schedulers.append((stop, task))
        waits = [asyncio.create_task(up.wait()), task]
        await asyncio.wait(waits, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert up.is_set(), task
        return lambda: self._stop(stop, task)

    async def _stop(self, stop, task):
        stop.set()
        await asyncio.wait_for(task, 15)

    async def end(self):
        for stop, task in self.schedulers:
            if not task.done():
                await self._stop(stop, task)
        await self.stack.aclose()

    async def agent(self, node_id="n1", **inventory):
        token = (
            await self.fleet.CreateNodeToken(fleet_pb2.CreateNodeTokenRequest(node_id=node_id))
        ).token
        seed, public = new_user_key()
        answer = await self.fleet.EnrolNode(
            fleet_pb2.EnrolNodeRequest(token=token, public_key=public)
        )
        creds = self.folder / f"{node_id}.creds"
        write_creds(creds, answer.credential_jwt, seed)
        bus = await self.bus(node_id, creds=creds, node_id=node_id)
        agent = Agent(node_id, bus)
        if inventory is not None:
            await agent.join(**inventory)
        return agent

    async def submit(self, request_id=None, **fields):
        return (await self.jobs.SubmitJob(request(request_id, **fields))).job

    async def get(self, name):
        answer = await self.jobs.GetJob(job_pb2.GetJobRequest(project=PROJECT, name=name))
        return answer.job

    async def until(self, name, state, timeout_s=15.0):
        wanted = type_job_pb2.JobState.Value(f"JOB_STATE_{state}")

        async def there():
            try:
                job = await self.get(name)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return None  # this connection comes back a moment after others
            return job if job.state == wanted else None

        return await eventually(there, timeout_s, f"{name} {state}")

    async def reason(self, name, code):
        async def there():
            job = await self.get(name)
            return job.reason if job.reason.code == code else None

        return await eventually(there, what=f"{name} waits for {code}")

    async def explain(self, name):
        return await self.jobs.ExplainJob(job_pb2.ExplainJobRequest(project=PROJECT, name=name))


def request(request_id=None, *, chips=(), count=1, cpu_milli=0, memory=0, **fields):
    """A submit request; ``fields`` go into the spec."""
    spec = type_job_pb2.JobSpec(commands=["true"], **fields)
    spec.resources.cpu_milli.min = cpu_milli or 1_000
    if memory:
        spec.resources.memory_bytes.min = memory
    if chips:
        spec.resources.accelerator.chips.extend(chips)
        spec.resources.accelerator.count.min = count
    return job_pb2.SubmitJobRequest(
        tenant=TENANT, project=PROJECT, request_id=request_id or f"r{next(_NUMBERS)}", spec=spec
    )
