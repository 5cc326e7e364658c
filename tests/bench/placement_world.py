"""The platform of the placement bench: real parts in processes of their own, nodes as rows."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.credit import pay_in
from gridlease_billing.ports import Credit
from gridlease_kernel.clock import SystemClock
from gridlease_mesh.bus import Bus
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_store.embedded import EmbeddedPostgres
from gridlease_store.pool import connect_pool
from gridlease_testkit.waiting import eventually

from . import figures, placement_core

SERVICES = ("billing", "scheduler")
TENANTS = 8
_HERTZ = os.sysconf("SC_CLK_TCK")
_READY_S = 60.0
_CREDIT_NANO = 10**15  # a million USD a tenant
# No agent speaks for these nodes, and none is given up for its silence.
_PATIENCE_MS = str(24 * 3_600_000)
_NODES = """
INSERT INTO node (id, site, public_key, state, inventory, cpu_milli, memory_bytes, disk_bytes,
    emulated, seen_at)
SELECT id, 'local', id, 'READY', facts::jsonb, $3, $4, $5, true, now() + interval '1 day'
FROM unnest($1::text[], $2::text[]) AS n (id, facts)
"""
_DEVICES = """
INSERT INTO device (node_id, id, chip, vendor, memory_bytes, emulated, clean)
SELECT n.id, 'gpu-' || d, n.chip, n.vendor, n.memory, true, true
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS n (id, chip, vendor, memory),
    generate_series(0, $5 - 1) AS d
"""


class World:
    """Database, broker, billing and scheduler, on a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.stack = contextlib.AsyncExitStack()

    async def begin(self):
        """The servers run, the services are migrated and serve."""
        self.postgres = EmbeddedPostgres(self.folder / "pg", die_with_parent=True)
        await asyncio.to_thread(self.postgres.start)
        self.stack.callback(self.postgres.stop)
        self.nats = EmbeddedNats(self.folder / "nats", die_with_parent=True)
        await asyncio.to_thread(self.nats.start)
        self.stack.callback(self.nats.stop)
        for name in SERVICES:
            await self.start(name)
        self.owner = await asyncpg.connect(self.postgres.dsn(), timeout=30)
        self.stack.push_async_callback(self.owner.close)
        await self._pay_in()

    async def _pay_in(self):
        pool = await connect_pool(self.postgres.dsn(), schema="billing", max_size=2)
        books = PostgresBooks(pool, SystemClock(), 60_000)
        for at in range(TENANTS):
            await pay_in(books, Credit(f"tenants/t{at}", _CREDIT_NANO, "bench", "bench"))
        await pool.close()

    async def start(self, name):
        """Run a service, and wait until it serves."""
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "GRIDLEASE_NATS_URL": self.nats.url,
            "GRIDLEASE_NATS_CREDS": str(self.nats.service_creds(name)),
            "GRIDLEASE_POSTGRES_DSN": self.postgres.dsn(),
            "GRIDLEASE_READY_FILE": str(ready),
            "GRIDLEASE_DISCONNECTED_AFTER_MS": _PATIENCE_MS,
            "GRIDLEASE_LOST_AFTER_MS": _PATIENCE_MS,
            "GRIDLEASE_HOLD_TTL_MS": _PATIENCE_MS,
            "GRIDLEASE_LOG_LEVEL": os.environ.get("GRIDLEASE_LOG_LEVEL", "WARNING"),
        }
        process = self.processes[name] = self._launch(name, env)

        def serves():
            if process.poll() is not None:
                raise RuntimeError((self.folder / f"{name}.log").read_text()[-4_000:])
            return ready.exists()

        await eventually(serves, _READY_S, f"{name} serves")

    def _launch(self, name, env):
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"gridlease_{name}"], env=env, stderr=log, stdout=log
            )

    def kill(self, name):
        """The end without any warning."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    async def bus(self):
        """A connection of the bench's own."""
        bus = await Bus.connect(self.nats.url, creds=self.nats.service_creds("bench"), name="bench")
        self.stack.push_async_callback(bus.close)
        return bus

    async def add_nodes(self, count):
        """As many emulated nodes as rows, as the store has them after an inventory."""
        cluster = placement_core.nodes(count)
        facts = [
            json.dumps({"cpuChip": it.cpu_chip, "rack": it.rack, "emulated": True})
            for it in cluster
        ]
        async with self.owner.transaction():
            await self.owner.execute("SET LOCAL search_path TO scheduler")
            first = cluster[0]
            amounts = (first.cpu_milli, first.memory_bytes, first.disk_bytes)
            await self.owner.execute(_NODES, [it.node_id for it in cluster], facts, *amounts)
            kinds = [it.devices[0] for it in cluster]
            await self.owner.execute(
                _DEVICES, [it.node_id for it in cluster], [x.chip for x in kinds],
                [x.vendor for x in kinds], [x.memory_bytes for x in kinds], len(first.devices),
            )  # fmt: skip
        await self.owner.execute("VACUUM ANALYZE scheduler.node, scheduler.device")

    def cpu_s(self):
        """CPU seconds used so far, by part."""
        return {
            **{name: _cpu_s(process.pid) for name, process in self.processes.items()},
            "postgres": sum(_cpu_s(pid) for pid in _family(self.postgres.pid)),
            "nats": _cpu_s(self.nats.pid),
            "bench": time.process_time(),
        }

    async def end(self):
        """Stop all of it."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
                process.wait()
        await self.stack.aclose()


@contextlib.asynccontextmanager
async def running(nodes):
    """A world with so many nodes, on a folder that is gone afterwards."""
    folder = _folder()
    world = World(folder)
    try:
        await world.begin()
        figures.note(f"{nodes} emulated nodes")
        await world.add_nodes(nodes)
        yield world
    finally:
        await world.end()
        shutil.rmtree(folder, ignore_errors=True)


def _folder():
    """A folder that the database's own account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="gridlease-bench-"))
    folder.chmod(0o755)
    return folder


def _family(pid):
    """A process and its children."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, tasks)]


def _cpu_s(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _HERTZ
