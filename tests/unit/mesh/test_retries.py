"""Only idempotent calls are made again, and only within the budget."""

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from gridlease_mesh import retries
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker

METHOD = "/test.v1.Flaky/Get"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Setup:
    def __init__(self, failures):
        self.broker = LoopbackBroker()
        self.server_bus = Bus(self.broker.wire(), name="flaky")
        self.bus = Bus(self.broker.wire(), name="caller")
        self.server = self.server_bus.server()
        self.failures = failures
        self.tried = 0
        handlers = {"Get": grpc.unary_unary_rpc_method_handler(self.get)}
        self.server.add_registered_method_handlers("test.v1.Flaky", handlers)

    async def get(self, request, context):
        """Fails as a dead instance does, so often; the answer is lost, not sent."""
        self.tried += 1
        if self.tried <= self.failures:
            await context.abort(UNAVAILABLE, "stopping")
        return request

    async def close(self):
        await self.bus.close()
        await self.server.stop(None)
        await self.server_bus.close()


@pytest.fixture
async def start():
    made = []

    async def one(failures):
        made.append(Setup(failures))
        await made[-1].server.start()
        return made[-1]

    yield one
    for each in made:
        await each.close()


def lose(broker, count):
    """Let the broker say ``count`` times that nobody is there."""
    left = [count]

    def tap(delivery):
        if ".any.test.v1.Flaky." in delivery.subject and left[0]:
            left[0] -= 1
            yield delivery._replace(
                subject=delivery.reply, reply="", headers=b"NATS/1.0 503\r\n\r\n", payload=b""
            )
        else:
            yield delivery

    broker.tap = tap


async def test_an_idempotent_call_is_made_again(start):
    setup = await start(0)
    lose(setup.broker, 2)
    channel = setup.bus.channel(idempotent=[METHOD])
    assert await channel.unary_unary(METHOD)(b"x") == b"x"
    assert setup.tried == 1


async def test_three_times_at_most(start):
    setup = await start(0)
    lose(setup.broker, 3)
    call = setup.bus.channel(idempotent=[METHOD]).unary_unary(METHOD)(b"x")
    assert await call.code() is UNAVAILABLE
    assert call.attempts == 3
    assert setup.tried == 0


async def test_other_calls_are_not(start):
    setup = await start(0)
    lose(setup.broker, 1)
    assert await setup.bus.channel().unary_unary(METHOD)(b"x").code() is UNAVAILABLE
    assert setup.tried == 0


async def test_a_status_of_the_servicer_is_an_answer(start):
    setup = await start(1)
    call = setup.bus.channel(idempotent=[METHOD]).unary_unary(METHOD)(b"x")
    assert await call.code() is UNAVAILABLE
    assert setup.tried == 1


async def test_the_budget_runs_dry_and_is_earned_back(start):
    setup = await start(0)
    channel = setup.bus.channel(idempotent=[METHOD], default_timeout_s=30)
    call = channel.unary_unary(METHOD)
    lose(setup.broker, 10_000)
    endings = await asyncio.gather(*(call(b"x").code() for _ in range(30)))
    assert set(endings) == {UNAVAILABLE}
    lose(setup.broker, 1)
    dry = call(b"x")
    assert await dry.code() is UNAVAILABLE
    assert dry.attempts == 1
    for _ in range(11):
        await call(b"x")
    lose(setup.broker, 1)
    assert await call(b"x") == b"x"


async def test_a_deadline_is_not_outlived(start):
    setup = await start(0)
    lose(setup.broker, 10)
    call = setup.bus.channel(idempotent=[METHOD]).unary_unary(METHOD)(b"x", timeout=0.01)
    assert await call.code() in (UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_lost_request_is_made_again(start):
    setup = await start(0)
    left = [1]

    def tap(delivery):
        if ".any.test.v1.Flaky.Get" in delivery.subject and left[0]:
            left[0] -= 1
            return ()
        return (delivery,)

    setup.broker.tap = tap
    channel = setup.bus.channel(idempotent=[METHOD])
    assert await asyncio.wait_for(channel.unary_unary(METHOD)(b"x"), 5) == b"x"


async def test_a_lost_request_ends_unavailable_within_two_seconds(start):
    setup = await start(0)
    setup.broker.tap = lambda d: () if ".any.test.v1.Flaky.Get" in d.subject else (d,)
    call = setup.bus.channel(default_timeout_s=30).unary_unary(METHOD)(b"x")
    assert await asyncio.wait_for(call.code(), 2) is UNAVAILABLE


async def test_a_lost_answer_ends_unavailable_within_two_seconds(start):
    setup = await start(0)
    channel = setup.bus.channel(default_timeout_s=30)
    setup.broker.tap = lambda d: () if d.payload == b"answer" and not d.reply else (d,)
    call = channel.unary_unary(METHOD)(b"answer")
    assert await asyncio.wait_for(call.code(), 2) is UNAVAILABLE


def test_the_proto_says_so():
    options = descriptor_pb2.MethodOptions
    file = descriptor_pb2.FileDescriptorProto(name="retries_test.proto", package="retries.v1")
    file.message_type.add(name="Empty")
    service = file.service.add(name="S")
    levels = {
        "Plain": options.IDEMPOTENCY_UNKNOWN,
        "Get": options.NO_SIDE_EFFECTS,
        "Put": options.IDEMPOTENT,
    }
    for name, level in levels.items():
        added = service.method.add(
            name=name, input_type=".retries.v1.Empty", output_type=".retries.v1.Empty"
        )
        added.options.idempotency_level = level
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    known = {name: retries.is_idempotent(f"/retries.v1.S/{name}") for name in levels}
    assert known == {"Plain": False, "Get": True, "Put": True}
    assert not retries.is_idempotent("/nobody.v1.S/Knows")
