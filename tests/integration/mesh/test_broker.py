"""The embedded broker: start, stop, death, and what calls see of it."""

import asyncio
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from gridlease_kernel.faults import Unreachable
from gridlease_mesh.bus import Bus
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_testkit.waiting import eventually_sync

from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc
from tests.integration.mesh.servicer import Echo

SOON_S = 10.0


@pytest.fixture
def own_nats(state_folder):
    """A broker of this test's own."""
    server = EmbeddedNats(state_folder / "nats")
    server.start()
    yield server
    server.stop()


def is_running(pid):
    """Whether it runs; an orphan that nobody reaps is dead too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON_S)


async def join(nats, name):
    return await Bus.connect(nats.url, creds=nats.service_creds(name), name=name)


async def serve(bus, **options):
    echo = Echo()
    server = bus.server(**options)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(echo, server)
    await server.start()
    return echo, server


def test_it_restarts_over_its_folder_on_its_port(own_nats):
    url = own_nats.url
    own_nats.kill()
    assert own_nats.pid is None
    own_nats.start()
    assert own_nats.url == url
    own_nats.stop()
    own_nats.stop()
    again = EmbeddedNats(own_nats.folder)
    assert again.url == url


def test_a_leftover_of_a_dead_supervisor_is_replaced(own_nats):
    old = own_nats.pid
    other = EmbeddedNats(own_nats.folder)
    other.start()
    assert other.pid not in (None, old)
    other.stop()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux has no setpriv here")
def test_it_can_die_with_its_parent(state_folder):
    code = (
        "import os, pathlib, signal, sys; from gridlease_mesh.embedded import EmbeddedNats\n"
        "server = EmbeddedNats(pathlib.Path(sys.argv[1]), die_with_parent=True)\n"
        "server.start(); print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(state_folder / "nats")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    pid = int(ran.stdout)
    eventually_sync(lambda: not is_running(pid))


def test_a_taken_port_is_a_fault_with_a_remedy(state_folder):
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        server = EmbeddedNats(state_folder / "nats", port=squatter.getsockname()[1])
        with pytest.raises(Unreachable) as caught:
            server.start()
    assert caught.value.reason == "PORT_TAKEN"
    assert caught.value.remedy
    assert server.pid is None


def test_seeds_and_credentials_are_private(own_nats):
    own_nats.service_creds("scheduler")
    files = list((own_nats.folder / "keys").iterdir())
    seeds = {"operator.seed", "mesh.seed", "signing.seed", "system.seed", "scheduler.creds"}
    assert seeds <= {f.name for f in files}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


async def test_nobody_there_is_unreachable(state_folder):
    server = EmbeddedNats(state_folder / "nats")
    with pytest.raises(Unreachable) as caught:
        await Bus.connect(server.url, name="gateway", timeout_s=0.5)
    assert caught.value.reason == "NATS_UNREACHABLE"


async def test_channels_and_servers_survive_the_brokers_death(own_nats):
    service, caller = await join(own_nats, "echo"), await join(own_nats, "caller")
    echo, _ = await serve(service)
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    assert (await stub.Say(echo_pb2.SayRequest(text="1"))).text == "1"
    hanging = stub.Say(echo_pb2.SayRequest(mode="hang"))
    await soon(echo.started.wait())
    back = [asyncio.Event(), asyncio.Event()]
    service.on_connected(back[0].set)
    caller.on_connected(back[1].set)

    own_nats.kill()
    assert await soon(hanging.code()) is grpc.StatusCode.UNAVAILABLE
    assert await stub.Say(echo_pb2.SayRequest()).code() is grpc.StatusCode.UNAVAILABLE

    own_nats.start()
    for event in back:
        await soon(event.wait())
    await service.flush()
    assert (await stub.Say(echo_pb2.SayRequest(text="2"))).text == "2"
    got = [a.index async for a in stub.Repeat(echo_pb2.RepeatRequest(count=100))]
    assert got == list(range(100))
    await caller.close()
    await service.close()


async def test_a_restarted_service_is_reached_by_old_channels(own_nats):
    caller = await join(own_nats, "caller")
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    for turn in range(2):
        service = await join(own_nats, "echo")
        _, server = await serve(service)
        assert (await stub.Say(echo_pb2.SayRequest(text=str(turn)))).text == str(turn)
        await server.stop(1.0)
        await service.close()
        start = asyncio.get_running_loop().time()
        assert await stub.Say(echo_pb2.SayRequest()).code() is grpc.StatusCode.UNAVAILABLE
        assert asyncio.get_running_loop().time() - start < 1.0
    await caller.close()


async def test_stop_lets_running_calls_end(own_nats):
    caller, service = await join(own_nats, "caller"), await join(own_nats, "echo")
    echo, server = await serve(service)
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    kept = stub.Say(echo_pb2.SayRequest(mode="wait", text="kept"))
    await soon(echo.started.wait())
    stopping = asyncio.create_task(server.stop(SOON_S))
    await service.flush()
    assert await stub.Say(echo_pb2.SayRequest()).code() is grpc.StatusCode.UNAVAILABLE
    echo.release.set()
    assert (await kept).text == "kept"
    await stopping
    await caller.close()
    await service.close()


async def test_stop_without_grace_ends_calls_unavailable(own_nats):
    caller, service = await join(own_nats, "caller"), await join(own_nats, "echo")
    echo, server = await serve(service)
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    hanging = stub.Say(echo_pb2.SayRequest(mode="hang"))
    await soon(echo.started.wait())
    await server.stop(None)
    assert await soon(hanging.code()) is grpc.StatusCode.UNAVAILABLE
    assert echo.cancelled.is_set()
    await caller.close()
    await service.close()


async def test_beyond_the_bound_is_refused(own_nats):
    caller, service = await join(own_nats, "caller"), await join(own_nats, "echo")
    echo, server = await serve(service, max_concurrent=2)
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    kept = [stub.Say(echo_pb2.SayRequest(mode="wait", text=str(n))) for n in range(2)]
    refused = stub.Say(echo_pb2.SayRequest())
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    echo.release.set()
    assert [(await call).text for call in kept] == ["0", "1"]
    assert (await stub.Say(echo_pb2.SayRequest(text="again"))).text == "again"
    await server.stop(None)
    await caller.close()
    await service.close()


async def test_instances_share_the_calls(own_nats):
    caller = await join(own_nats, "caller")
    services = [await join(own_nats, "echo") for _ in range(2)]
    echoes = [(await serve(service))[0] for service in services]
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    await asyncio.gather(*(stub.Say(echo_pb2.SayRequest()) for _ in range(100)))
    assert all(echo.started.is_set() for echo in echoes)
    for bus in (caller, *services):
        await bus.close()
