"""A process of its own that serves the suite's methods: ``python -m …instance URL CREDS NAME``."""

import asyncio
import sys
from pathlib import Path

import grpc
from gridlease_mesh.bus import Bus

SERVICE = "gridlease.suite.v1.Instance"


async def hang(request, context):
    await asyncio.Event().wait()


async def echo(request, context):
    return request


async def stream(request, context):
    number = 0
    while True:
        yield str(number).encode()
        number += 1
        if request == b"once":
            await asyncio.Event().wait()


async def gather(requests, context):
    return str(sum([len(request) async for request in requests])).encode()


async def chat(requests, context):
    async for request in requests:
        yield request


HANDLERS = {
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Stream": grpc.unary_stream_rpc_method_handler(stream),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}


async def main(url, creds, name):
    async with await Bus.connect(url, creds=Path(creds), name=name) as bus:
        server = bus.server()
        server.add_registered_method_handlers(SERVICE, HANDLERS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
        await server.start()
        print(server.instance, flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
