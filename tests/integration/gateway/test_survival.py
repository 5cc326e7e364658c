"""The door comes back by itself: after its own kill -9, and after those of NATS and PostgreSQL."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from pathlib import Path

from gridlease_gateway.bootstrap import gateway
from gridlease_gateway.settings import Settings
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_sdk import Client, jobfile
from gridlease_testkit.ports import free_port
from gridlease_testkit.postgres import start_server
from gridlease_testkit.waiting import eventually

from tests.integration.gateway.conftest import rooms


def _pid_in(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


@contextlib.asynccontextmanager
async def started(environ):
    """The gateway's process, serving."""
    ready = Path(environ["GRIDLEASE_READY_FILE"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gridlease_gateway", env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(lambda: _pid_in(ready) == process.pid, 30, "the ready file")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_process_is_killed_and_resumes_and_stops_cleanly(nats, database, state_folder):
    prefix = f"gl{secrets.token_hex(4)}"
    address = f"127.0.0.1:{free_port()}"
    environ = {
        "PATH": os.environ["PATH"],
        "GRIDLEASE_NATS_URL": nats.url,
        "GRIDLEASE_NATS_CREDS": str(nats.service_creds("gateway")),
        "GRIDLEASE_POSTGRES_DSN": database,
        "GRIDLEASE_SUBJECT_PREFIX": prefix,
        "GRIDLEASE_GATEWAY_LISTEN": address,
        "GRIDLEASE_CLIENT_FILE": str(state_folder / "client.json"),
        "GRIDLEASE_BUNDLES": str(state_folder / "bundles"),
        "GRIDLEASE_READY_FILE": str(state_folder / "ready"),
    }
    async with rooms(nats, prefix), started(environ) as first:
        keys = json.loads((state_folder / "client.json").read_text())
        assert keys["endpoint"] == address
        async with Client.connect(address, keys["tenant_key"]) as client:
            job = await client.submit(jobfile.read({"commands": ["x"]}), request_id="r-1")
            first.send_signal(signal.SIGKILL)
            await first.wait()
            asking = asyncio.create_task(
                client.submit(jobfile.read({"commands": ["x"]}), request_id="r-1")
            )
            async with started(environ) as second:
                assert (await asyncio.wait_for(asking, 30)).name == job.name
                assert json.loads((state_folder / "client.json").read_text()) == keys
                second.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(second.wait(), 5) == 0
        assert not (state_folder / "ready").exists()


async def test_nats_and_postgres_are_killed_and_the_door_recovers(state_folder):
    broker = EmbeddedNats(state_folder / "nats")
    server = await asyncio.to_thread(start_server, state_folder / "postgres")
    await asyncio.to_thread(broker.start)
    try:
        settings = Settings(
            nats_url=broker.url,
            nats_creds=broker.service_creds("gateway"),
            postgres_dsn=server.dsn(),
            gateway_listen="127.0.0.1:0",
            client_file=state_folder / "client.json",
            bundles=state_folder / "bundles",
        )
        async with rooms(broker, "gl") as (scheduler, _, _), gateway(settings) as door:
            key = json.loads(settings.client_file.read_text())["tenant_key"]
            async with Client.connect(f"127.0.0.1:{door.port}", key) as client:
                await client.submit(jobfile.read({"commands": ["x"]}))
                await asyncio.to_thread(broker.kill)
                asking = asyncio.create_task(client.submit(jobfile.read({"commands": ["y"]})))
                await asyncio.to_thread(broker.start)
                await asyncio.wait_for(asking, 30)
                os.kill(server.pid, signal.SIGKILL)
                await eventually(lambda: server.pid is None)
                asking = asyncio.create_task(client.create_api_key(display_name="after"))
                await asyncio.to_thread(server.start)
                with contextlib.suppress(Exception):  # it may fail: a key is not made twice
                    await asyncio.wait_for(asking, 30)
                await client.submit(jobfile.read({"commands": ["z"]}))
                assert len(scheduler.jobs) == 3
    finally:
        broker.stop()
        await asyncio.to_thread(server.stop, 5.0)
