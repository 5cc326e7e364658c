"""One client of the bench of the mesh: ``… tests.bench.mesh_load TRANSPORT ADDRESS [CREDS]``.

Each command names a case, a concurrency and a span; the answer has calls (for streams: messages)
a second, latencies and the CPU time of this process.
"""

import asyncio
import contextlib
import sys
import time

import aiohttp
import grpc
import nats
import orjson
from gridlease_mesh.bus import Bus

from tests.bench import children, figures, mesh_messages
from tests.bench.http1 import Connection
from tests.bench.wire import bench_pb2, bench_pb2_grpc

BATCH = 1000  # messages of one stream
TIMEOUT_S = 20.0


class Stub:
    """Calls through the generated stub: gRPC and mesh alike."""

    def __init__(self, channel, close):
        self._stub = bench_pb2_grpc.BenchServiceStub(channel)
        self._close = close
        self._ping = mesh_messages.ping()
        self._report = mesh_messages.report()

    async def close(self):
        await self._close()

    async def ping(self, _worker):
        await self._stub.Ping(self._ping, timeout=TIMEOUT_S)
        return 1

    async def report(self, _worker):
        await self._stub.Report(self._report, timeout=TIMEOUT_S)
        return 1

    async def download(self, _worker):
        request = bench_pb2.DownloadRequest(count=BATCH, text=mesh_messages.SMALL)
        count = 0
        async for _ in self._stub.Download(request, timeout=TIMEOUT_S):
            count += 1
        return count

    async def _pings(self):
        for _ in range(BATCH):
            yield self._ping

    async def upload(self, _worker):
        answer = await self._stub.Upload(self._pings(), timeout=TIMEOUT_S)
        return int(answer.text)

    async def chat(self, _worker):
        count = 0
        async for _ in self._stub.Chat(self._pings(), timeout=TIMEOUT_S):
            count += 1
        return count


class Nats:
    """What nats-py gives by itself: request and answer, protobuf made and read by hand."""

    def __init__(self, connection):
        self._connection = connection
        self._ping = mesh_messages.ping()
        self._report = mesh_messages.report()

    async def close(self):
        await self._connection.close()

    async def _call(self, subject, request):
        answer = await self._connection.request(
            subject, request.SerializeToString(), timeout=TIMEOUT_S
        )
        bench_pb2.PingResponse.FromString(answer.data)
        return 1

    async def ping(self, _worker):
        return await self._call("bench.Ping", self._ping)

    async def report(self, _worker):
        return await self._call("bench.Report", self._report)


class Http:
    """JSON over HTTP/1.1: a connection a worker, as a pool would have."""

    def __init__(self, connections):
        self._connections = connections
        self._ping = mesh_messages.plain(mesh_messages.ping())
        self._report = mesh_messages.plain(mesh_messages.report())

    async def close(self):
        for connection in self._connections:
            connection.close()

    async def ping(self, worker):
        orjson.loads(await self._connections[worker].post(b"/Ping", orjson.dumps(self._ping)))
        return 1

    async def report(self, worker):
        orjson.loads(await self._connections[worker].post(b"/Report", orjson.dumps(self._report)))
        return 1


class Aiohttp:
    """JSON over HTTP/1.1 by the client that users of Python have."""

    def __init__(self, session, address):
        self._session = session
        self._url = f"http://{address}"
        self._ping = mesh_messages.plain(mesh_messages.ping())
        self._report = mesh_messages.plain(mesh_messages.report())

    async def close(self):
        await self._session.close()

    async def _call(self, path, rows):
        async with self._session.post(self._url + path, data=orjson.dumps(rows)) as answer:
            orjson.loads(await answer.read())
        return 1

    async def ping(self, _worker):
        return await self._call("/Ping", self._ping)

    async def report(self, _worker):
        return await self._call("/Report", self._report)


async def connect(transport, address, creds):
    if transport == "grpc":
        channel = grpc.aio.insecure_channel(address)
        return Stub(channel, channel.close)
    if transport == "mesh":
        bus = await Bus.connect(address, creds=creds, name="caller")
        return Stub(bus.channel(), bus.close)
    if transport == "nats":
        return Nats(await nats.connect(address, user_credentials=creds))
    if transport == "aiohttp":
        pool = aiohttp.TCPConnector(limit=64)
        headers = {"content-type": "application/json"}
        return Aiohttp(aiohttp.ClientSession(connector=pool, headers=headers), address)
    return Http([await Connection.open(address) for _ in range(64)])


async def load(call, concurrency, seconds):
    """Call in closed loops until the time is over."""
    latencies_ns, done = [], 0
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)

    async def worker(number):
        nonlocal done
        began = clock()
        while began < end:
            count = await call(number)
            done += count  # not in one line: others add while this one waits
            now = clock()
            latencies_ns.append(now - began)
            began = now

    cpu, started = time.process_time_ns(), clock()
    await asyncio.gather(*(worker(number) for number in range(concurrency)))
    elapsed_s, cpu_ns = (clock() - started) / 1e9, time.process_time_ns() - cpu
    latencies_ns.sort()
    return {
        "calls": done,
        "per_s": done / elapsed_s,
        "p50_ms": figures.percentile(latencies_ns, 0.5) / 1e6,
        "p99_ms": figures.percentile(latencies_ns, 0.99) / 1e6,
        "client_us": cpu_ns / 1e3 / done,
    }


async def main(transport, address, creds=None):
    client = await connect(transport, address, creds)
    children.say(ready=True)
    async for command in children.commands():
        call = getattr(client, command["case"], None)
        if call is None:
            children.say(skipped="not a thing of this transport")
            continue
        try:
            children.say(**await load(call, command["concurrency"], command["seconds"]))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            children.say(skipped="not carried yet")
    await client.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
