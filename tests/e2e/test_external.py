"""Servers of one's own: PostgreSQL by DSN and NATS by URL instead of the embedded ones."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_mesh.embedded import find_binary
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually_sync

from tests.e2e.world import ENDED, World, draft, state_is


@pytest.fixture
def plain_nats(folder: Path) -> Iterator[str]:
    """A NATS server without accounts, as an operator may already have one."""
    port, monitor = free_port(), free_port()
    config = folder / "plain-nats.conf"
    facts = {"listen": f"127.0.0.1:{port}", "http": f"127.0.0.1:{monitor}"}
    facts["jetstream"] = {"store_dir": str(folder / "plain-nats")}
    config.write_text(json.dumps(facts))
    with (folder / "plain-nats.log").open("wb") as log:
        server = subprocess.Popen([str(find_binary()), "-c", str(config)], stdout=log, stderr=log)

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/healthz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    eventually_sync(healthy, 15, "nats answers")
    yield f"nats://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


@pytest.mark.slow  # servers of their own and a platform on them: some 10 s
async def test_the_platform_runs_on_servers_of_ones_own(
    folder: Path, database: str, plain_nats: str
) -> None:
    world = World(folder / "state", "--nats", plain_nats, "--postgres", database)
    world.start()
    try:
        assert not (world.state / "postgres").exists()
        assert not (world.state / "nats").exists()
        async with world.tenant() as tenant:
            name = (await tenant.submit(draft("echo hello"))).name
            job = await state_is(tenant, name, *ENDED)
            assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    finally:
        world.stop()


def test_an_address_where_nothing_listens_is_one_sentence(folder: Path) -> None:
    command = [sys.executable, "-m", "gridlease_launch", "up", "--port", str(free_port())]
    command += ["--state", str(folder / "nowhere"), "--no-agent"]
    command += ["--postgres", f"postgresql://nobody@127.0.0.1:{free_port()}/none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "postgres" in done.stderr.lower()
