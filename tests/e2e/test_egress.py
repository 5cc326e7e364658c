"""A job that may call one address, through the whole platform: it reaches that and nothing else,
and what it sent stands in the tenant's usage."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2, money_pb2
from gridlease_agent.network.tasks import TaskNetworks
from gridlease_sdk import Client
from gridlease_testkit.waiting import eventually

from tests.e2e.world import ENDED, QUICK, World, draft, state_is

_ALLOWED, _OTHER = "8.8.4.4", "9.9.9.9"
_PORT = 7777
_SENT = 200_000
_SERVER = f"""
import socket, threading
def serve(address, port):
    listener = socket.create_server((address, port))
    while True:
        caller = listener.accept()[0]
        while caller.recv(65536):
            pass
        caller.close()
for at in (("{_ALLOWED}", {_PORT}), ("{_ALLOWED}", {_PORT + 1}), ("{_OTHER}", {_PORT})):
    threading.Thread(target=serve, args=at).start()
print("up", flush=True)
"""
_CALLER = """
import socket, sys
for place in sys.argv[1:]:
    address, port = place.split(":")
    try:
        with socket.create_connection((address, int(port)), 3) as call:
            call.sendall(bytes({sent}))
            call.shutdown(socket.SHUT_WR)
            call.recv(1)
        print(place, "reached", flush=True)
    except OSError:
        print(place, "barred", flush=True)
"""


@pytest.fixture
def uplink() -> Iterator[str]:
    """An interface of this host behind which is an internet of two addresses; for UPLINKS."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no Python that sandboxes see: apt-get install -y python3")
    for program, package in (("nft", "nftables"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: apt-get install -y {package}")
    name, internet = f"gle{os.getpid()}", f"gle{os.getpid()}i"
    server: subprocess.Popen[str] | None = None
    try:
        _ip("netns", "add", internet)
        _ip("link", "add", name, "type", "veth", "peer", "name", "isp", "netns", internet)
        _ip("link", "set", name, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", "5.5.5.1/31", "dev", "isp"),
            ("addr", "add", f"{_ALLOWED}/32", "dev", "lo"),
            ("addr", "add", f"{_OTHER}/32", "dev", "lo"),
            ("link", "set", "isp", "up"),
            ("route", "add", "100.64.0.0/10", "via", "5.5.5.0"),
        ):
            _ip("-n", internet, *words)
        server = subprocess.Popen(
            ["ip", "netns", "exec", internet, "/usr/bin/python3", "-c", _SERVER],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield f"{name}:1000:5.5.5.0/31:5.5.5.1"
    finally:
        if server is not None:
            server.kill()
            server.communicate()
        for words in (("netns", "del", internet), ("link", "del", name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def world(folder: Path, uplink: str) -> Iterator[World]:
    one = World(folder / "state", timing={**QUICK, "GRIDLEASE_UPLINKS": uplink})
    fabric = TaskNetworks(folder / "state/node").fabric_name
    one.start()
    yield one
    one.stop()
    # A node that stops leaves its networks to the tasks that go on; here nobody comes back.
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("netns", "del", fabric)


@pytest.mark.slow
async def test_one_address_is_reached_and_the_bytes_are_on_the_bill(
    world: World,
) -> None:
    env = {"CALL": _CALLER.format(sent=_SENT)}
    allowed = f"{_ALLOWED}:{_PORT}"
    barred = (f"{_ALLOWED}:{_PORT + 1}", f"{_OTHER}:{_PORT}", f"127.0.0.1:{world.port}",
              f"5.5.5.1:{_PORT}")  # fmt: skip
    command = f'/usr/bin/python3 -I -S -c "$CALL" {allowed} {" ".join(barred)}'
    async with world.tenant() as client:
        free = await client.submit(draft(command, env=env, network={"egress_to": [allowed]}))
        shut = await client.submit(draft(command, env=env))
        for job in (free, shut):
            ended = await state_is(client, job.name, *ENDED)
            assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
        said = await _said(client, free.name)
        assert said == {allowed: "reached", **dict.fromkeys(barred, "barred")}
        said = await _said(client, shut.name)
        assert set(said.values()) == {"barred"}, "who asked for nobody reaches nobody"

        async def metered() -> money_pb2.UsageLine | None:
            lines = await client.list_usage(job=free.name)
            return next((line for line in lines if line.meter == "egress"), None)

        line = await eventually(metered, 30.0, "what it sent stands in its usage")
        assert line is not None
        assert _SENT < line.counter_ns < 2 * _SENT, line
        assert not [x for x in await client.list_usage(job=shut.name) if x.meter == "egress"]


async def _said(client: Client, name: str) -> dict[str, str]:
    text = b"".join([piece async for piece in client.logs(name)]).decode()
    return dict(line.split() for line in text.splitlines())
