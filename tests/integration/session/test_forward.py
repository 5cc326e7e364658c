"""Connections into a sandbox, and a task's own output while somebody looks on."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from gridlease.agent.v1 import session_pb2 as pb
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually

from tests.integration.session.conftest import LEASE, WAIT_S, Inside, read

pytestmark = pytest.mark.asyncio(loop_scope="module")
ECHO = """
import asyncio, sys
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b'over')
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', 7000)
    local = await asyncio.start_unix_server(echo, '/work/echo.sock')
    print('listening', flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def connect(inside: Inside, **target: Any) -> Any:
    call = inside.stub.Forward(timeout=WAIT_S)
    start = pb.ForwardStart(lease=LEASE, target=pb.ForwardTarget(**target))
    await call.write(pb.ForwardRequest(start=start))
    assert (await call.read()).data.connected
    return call


async def echoed(call: Any, content: bytes) -> bytes:
    """What comes back of ``content``, to the end of both ways."""

    async def feed() -> None:
        for at in range(0, len(content), 100_000):
            piece = pb.ForwardData(content=content[at : at + 100_000])
            await call.write(pb.ForwardRequest(data=piece))
        await call.write(pb.ForwardRequest(data=pb.ForwardData(half_close=True)))

    async def back() -> bytes:
        found = b""
        while (answer := await call.read()) is not grpc.aio.EOF:
            found += answer.data.content
        return found

    found, _ = await asyncio.gather(back(), feed())
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(inside: Inside) -> Any:
    call = await inside.start("/usr/bin/python3", "-c", ECHO)
    await read(call, b"listening")
    yield inside
    call.cancel()


@pytest.mark.parametrize("target", [{"port": 7000}, {"path": "/work/echo.sock"}])
async def test_bytes_go_both_ways_and_both_ends_close(echo: Inside, target: dict[str, Any]) -> None:
    content = os.urandom(2_000_000)
    found = await echoed(await connect(echo, **target), content)
    digest = hashlib.sha256(content + b"over").digest()
    assert hashlib.sha256(found).digest() == digest


async def test_many_connections_at_once(echo: Inside) -> None:
    calls = await asyncio.gather(*(connect(echo, port=7000) for _ in range(8)))
    found = await asyncio.gather(*(echoed(call, b"%d" % at) for at, call in enumerate(calls)))
    assert found == [b"%dover" % at for at in range(8)]


@pytest.mark.parametrize("target", [{"port": 7001}, {"path": "/work/none.sock"}])
async def test_where_nobody_listens_it_says_so(inside: Inside, target: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await connect(inside, **target)
    assert fault_from_error(caught.value).reason == "FORWARD_REFUSED"


async def test_the_hosts_own_ports_are_not_reached(inside: Inside) -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await connect(inside, port=port)
    assert fault_from_error(caught.value).reason == "FORWARD_REFUSED"


async def test_attach_begins_now_and_ends_with_the_task(inside: Inside) -> None:
    own, centre, agent = "ls-2", inside.centre, inside.agent
    centre.want(own, ["echo before; while [ ! -e go ]; do echo tick; sleep 0.1; done; seq 50000"])
    await eventually(lambda: centre.running(own), 20)
    await eventually(lambda: (agent.state / "leases" / own / "log").stat().st_size > 7)
    whole = inside.stub.Attach(pb.AttachRequest(lease=own, tail_bytes=10_000), timeout=WAIT_S)
    fresh = inside.stub.Attach(pb.AttachRequest(lease=own), timeout=WAIT_S)
    assert (await whole.read()).content.startswith(b"before\ntick\n")
    assert (await fresh.read()).content.startswith(b"tick\n")
    assert (await inside.run("touch", "/work/go", lease=own)).code == 0
    for call in (fresh, whole):
        said = [word for word in (await rest(call)).split() if word != b"tick"]
        assert said == [b"%d" % at for at in range(1, 50_001)]


async def rest(call: Any) -> bytes:
    found = b""
    while (answer := await call.read()) is not grpc.aio.EOF:
        found += answer.content
    return found


async def test_a_fast_writer_that_is_killed_loses_no_tail(inside: Inside) -> None:
    """What was read while it wrote is, byte for byte, what is kept."""
    own, centre, agent = "ls-3", inside.centre, inside.agent
    from tests.integration.agent.test_life import logs

    script = "i=0; while :; do i=$((i+1)); echo $i; echo $i > count; done"
    centre.want(own, [script], outputs=["count"])
    await eventually(lambda: centre.running(own), 20)
    following = asyncio.ensure_future(logs(centre, own, follow=True))
    path = agent.state / "leases" / own / "log"
    await eventually(lambda: path.stat().st_size > 20_000, 40)
    centre.end(own, notice_ms=0)
    followed = await following
    await eventually(lambda: centre.gone(own), 20)
    assert followed == await logs(centre, own)
    numbers = [int(line) for line in followed.split()]
    assert numbers == list(range(1, len(numbers) + 1))
    kept = (agent.state / "kept" / own / "files" / "count").read_text().split()
    assert not kept or len(numbers) >= int(kept[0]), "it wrote a line before it counted it"


async def test_nobody_there_and_it_is_stopped_for_that(inside: Inside) -> None:
    own, centre = "ls-4", inside.centre
    centre.want(own, ["sleep 600"], idle_stop_ms=1500, notice_ms=200)
    await eventually(lambda: centre.running(own), 20)
    call = await inside.start("/bin/sh", "-c", "sleep 2.5; echo still", lease=own)
    assert (await read(call)).stdout == b"still\n"
    assert centre.running(own)
    await eventually(lambda: centre.exit(own), 15)
    ended = centre.exit(own)
    assert ended is not None
    assert ended.reason == "IDLE"
