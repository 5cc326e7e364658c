"""Random bytes on every subject of a real broker: the service goes on, and counts."""

import asyncio
import random

import grpc
from gridlease_mesh.bus import Bus
from gridlease_mesh.subjects import service_inbox

SERVICE = "t.v1.Noise"
SOON_S = 5.0


async def test_a_service_under_noise(nats):
    dice = random.Random(20261122)

    async def echo(request, context):
        return request

    async def chat(requests, context):
        async for request in requests:
            yield request

    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    creds = {name: nats.service_creds(name) for name in ("noise", "caller", "outsider")}
    buses = [await Bus.connect(nats.url, creds=path, name=name) for name, path in creds.items()]
    served, bus, outsider = buses
    server = served.server(up=[SERVICE])
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    await server.start()
    channel = bus.channel(default_timeout_s=SOON_S)
    running = channel.stream_stream(f"/{SERVICE}/Chat")()
    await running.wait_for_connection()
    roots = ["gl.any", "gl.up.n-1", f"gl.one.{server.instance}"]
    tails = [f"{SERVICE}.Echo", f"{SERVICE}.Chat", f"{SERVICE}.No", "_cancel", f"_who.{SERVICE}"]
    tails += [f"_call.{server.instance}.{token}" for token in (1, 2, "who", "x")]
    targets = [f"{root}.{tail}" for root in roots for tail in tails]
    targets += [f"{channel.inbox}.{token}" for token in (1, 2, "w0", "w1", "x")]
    for _ in range(2000):
        headers = dice.choice(
            [
                b"",
                b"NATS/1.0\r\n\r\n",
                b"NATS/1.0\r\ngl-window: x\r\n\r\n",
                b"NATS/1.0\r\nx\r\n\r\n",
            ]
        )
        reply = dice.choice(["", f"{service_inbox('outsider')}.x.1", running.reply])
        payload = dice.randbytes(dice.randrange(40))
        outsider.wire.publish(dice.choice(targets), payload, reply=reply, headers=headers)
    await outsider.flush()
    await asyncio.wait_for(asyncio.gather(running.code(), served.flush(), bus.flush()), SOON_S)
    again = channel.unary_unary(f"/{SERVICE}/Echo")
    assert await again(b"still here") == b"still here"
    assert served.dead_letters.by_reason().get("callback_failed", 0) == 0
    assert served.dead_letters.total > 100
    assert bus.dead_letters.total > 10
    await server.stop(None)
    for each in buses:
        await each.close()
