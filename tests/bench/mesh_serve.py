# ruff: noqa: N802 - methods are named in the proto
"""One server of the bench of the mesh: ``python -m tests.bench.mesh_serve TRANSPORT [NATS]``."""

import asyncio
import contextlib
import socket
import sys

import grpc
import nats
import orjson
import uvicorn
from gridlease_mesh.bus import Bus

from tests.bench import children
from tests.bench.wire import bench_pb2, bench_pb2_grpc

Pong = bench_pb2.PingResponse


class Servicer(bench_pb2_grpc.BenchServiceServicer):
    """The same object serves over gRPC and over the mesh."""

    async def Ping(self, request, context):
        return Pong(text=request.text)

    async def Report(self, request, context):
        return Pong(text=request.devices[-1].id)

    async def Download(self, request, context):
        for _ in range(request.count):
            yield Pong(text=request.text)

    async def Upload(self, request_iterator, context):
        count = 0
        async for _ in request_iterator:
            count += 1
        return Pong(text=str(count))

    async def Chat(self, request_iterator, context):
        async for request in request_iterator:
            yield Pong(text=request.text)


async def serve_grpc(_url, _creds):
    server = grpc.aio.server()
    bench_pb2_grpc.add_BenchServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    children.say(address=f"127.0.0.1:{port}")
    await children.until_told()
    await server.stop(None)


async def serve_mesh(url, creds):
    async with await Bus.connect(url, creds=creds, name="bench") as bus:
        server = bus.server()
        bench_pb2_grpc.add_BenchServiceServicer_to_server(Servicer(), server)
        await server.start()
        children.say(address=url)
        await children.until_told()
        await server.stop(None)


async def serve_nats(url, creds):
    connection = await nats.connect(url, user_credentials=creds)

    async def ping(message):
        request = bench_pb2.PingRequest.FromString(message.data)
        await message.respond(Pong(text=request.text).SerializeToString())

    async def report(message):
        request = bench_pb2.ReportRequest.FromString(message.data)
        await message.respond(Pong(text=request.devices[-1].id).SerializeToString())

    await connection.subscribe("bench.Ping", cb=ping)
    await connection.subscribe("bench.Report", cb=report)
    await connection.flush()
    children.say(address=url)
    await children.until_told()
    await connection.close()


async def http_application(scope, receive, send):
    """A bare ASGI application: no framework between uvicorn and orjson."""
    assert scope["type"] == "http"
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    request = orjson.loads(body)
    text = request["devices"][-1]["id"] if scope["path"] == "/Report" else request["text"]
    answer = orjson.dumps({"text": text})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def serve_http(_url, _creds):
    # The protocol is named, or asyncio would leave Nagle's algorithm on and cost 40 ms a call.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        http_application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,  # connections idle while the others have their turn
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    host, port = listening.getsockname()
    children.say(address=f"{host}:{port}")
    await children.until_told()
    server.should_exit = True
    await running


SERVERS = {
    "grpc": serve_grpc,
    "mesh": serve_mesh,
    "nats": serve_nats,
    "http": serve_http,
    "aiohttp": serve_http,  # the same server; the client is another
}

if __name__ == "__main__":
    transport, *broker = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(SERVERS[transport](*(broker or (None, None))))
