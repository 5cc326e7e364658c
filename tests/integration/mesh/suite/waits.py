"""Short words that the scenarios share."""

import asyncio

import grpc
import pytest

SOON_S = 5.0


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON_S)


async def all_of(call):
    return [message async for message in call]


async def failure(awaitable):
    """The status that an awaitable fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(awaitable)
    return caught.value


class Seen:
    """What happened to a servicer."""

    def __init__(self):
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.got = []
        self.context = None

    async def hang(self):
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    # Servicers that do nothing but wait, one for each arity.

    async def hang_unary(self, request, context):
        self.context = context
        await self.hang()

    async def hang_stream(self, request, context):
        self.context = context
        yield b"first"
        await self.hang()

    async def hang_gather(self, requests, context):
        self.context = context
        await self.hang()

    async def hang_chat(self, requests, context):
        self.context = context
        yield b"first"
        await self.hang()


async def echo(request, context):
    return request


async def count(request, context):
    for index in range(int(request)):
        yield str(index).encode()


async def join(requests, context):
    return b",".join([request async for request in requests])


async def chat(requests, context):
    async for request in requests:
        yield b"re:" + request


def metadata_of(context):
    return {pair[0]: pair[1] for pair in context.invocation_metadata()}


async def given(*messages):
    for message in messages:
        yield message


async def still(task, seconds):
    """See that something does not come about for a while."""
    done, _ = await asyncio.wait({asyncio.ensure_future(task)}, timeout=seconds)
    assert not done


async def turn(seconds):
    """Give the others a turn: the beat of a load or of an endless iterator."""
    await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=seconds)
