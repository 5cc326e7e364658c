"""Webhooks against a real receiver: order, sameness, patience, and whose events they are."""

import asyncio
import base64
import contextlib
import datetime
import json

import grpc
import pytest
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2
from gridlease_gateway.adapters.poster import HttpPoster
from gridlease_gateway.domain.webhooks import signature
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Invalid, Unreachable
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually


class Receiver:
    """Answers each POST with the next of ``answers``, else 200, and remembers them."""

    def __init__(self):
        self.got = []
        self.answers = []

    async def __call__(self, reader, writer):
        with contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["Content-Length"]))
            self.got.append((head[0], headers, body))
            answer = self.answers.pop(0) if self.answers else "200 OK"
            writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()


@pytest.fixture
async def receiver():
    receiver = Receiver()
    server = await asyncio.start_server(receiver, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    yield receiver
    server.close()
    await server.wait_closed()


def notice(sequence, kind="budget.threshold"):
    event = fleet_pb2.Event(sequence=sequence, type=kind, entity="tenants/demo")
    event.time.FromDatetime(SystemClock().wall() + datetime.timedelta(minutes=1))
    return event


async def test_events_arrive_in_order_signed_and_again_under_the_same_id(world, receiver):
    reports = world.stub("ReportService")
    asked = pb.CreateWebhookRequest(url=receiver.url, types=["budget."])
    made = await reports.CreateWebhook(asked)
    assert made.secret.startswith("whsec_")
    receiver.answers = ["200 OK", "500 Oh", "302 Found\r\nLocation: http://127.0.0.1:1/"]
    world.billing.reports.notices = [notice(1), notice(2), notice(3, "cost.anomaly"), notice(4)]
    await eventually(lambda: len(receiver.got) == 5, 30.0)
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert ids == ["billing-1", "billing-2", "billing-2", "billing-2", "billing-4"]
    secret = base64.b64decode(made.secret.removeprefix("whsec_"))
    for line, headers, body in receiver.got:
        assert line == "POST /hook HTTP/1.1"
        stamp = int(headers["webhook-timestamp"])
        right = signature(secret, headers["webhook-id"], stamp, body)
        assert headers["webhook-signature"] == right
        assert json.loads(body)["data"]["entity"] == "tenants/demo"
    assert {it.tenant for it in world.billing.reports.asked} == {"tenants/demo"}
    assert {it.project for it in world.billing.reports.asked} == {"projects/demo"}
    (kept,) = (await reports.ListWebhooks(pb.ListWebhooksRequest())).webhooks
    assert (kept.failures, kept.last_error, kept.dead_count) == (0, "", 0)
    for _ in range(2):
        await reports.DeleteWebhook(pb.DeleteWebhookRequest(name=kept.name))
    assert not (await reports.ListWebhooks(pb.ListWebhooksRequest())).webhooks


async def test_a_webhook_of_nobody_is_missing_and_a_bad_url_refused(world):
    reports = world.stub("ReportService")
    for method, request, reason in (
        ("DeleteWebhook", pb.DeleteWebhookRequest(name="webhooks/wh-x"), "WEBHOOK_NOT_FOUND"),
        ("CreateWebhook", pb.CreateWebhookRequest(url="ftp://x/"), "WEBHOOK_URL_REFUSED"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(reports, method)(request)
        assert fault_from_error(caught.value).reason == reason


async def test_only_an_explicit_setting_lets_it_reach_this_host(receiver, monkeypatch):
    port = receiver.url.rsplit(":", 1)[1].split("/")[0]
    loop = asyncio.get_running_loop()
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"):
        with pytest.raises((Invalid, Unreachable)):
            await HttpPoster().post(f"https://{host}:{port}/", {}, b"{}")
    answers = iter(["93.184.216.34", "127.0.0.1"])  # a name that leads elsewhere the next time
    told = []

    async def once(host, port, **_more):
        told.append(next(answers))
        return [(2, 1, 6, "", (told[-1], port))]

    async def connect(address, *_args, **_more):
        told.append(address)
        raise OSError

    monkeypatch.setattr(loop, "getaddrinfo", once)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    with pytest.raises(Unreachable):
        await HttpPoster().post("https://rebinding.example/", {}, b"{}")
    assert told == ["93.184.216.34", "93.184.216.34"]
    with pytest.raises(Invalid):
        await HttpPoster().post("https://rebinding.example/", {}, b"{}")
    assert not receiver.got


async def test_a_tenant_sees_its_own_and_the_operator_all(world):
    asked = world.billing.reports.asked
    await world.stub("ReportService").GetRevenue(pb.GetRevenueRequest())
    assert (asked[-1].tenant, asked[-1].project) == ("tenants/demo", "projects/demo")
    await world.stub("ReportService", "operator_key").GetRevenue(pb.GetRevenueRequest())
    assert (asked[-1].tenant, asked[-1].project) == ("", "")
    budgets = (await world.stub("ReportService").ListBudgets(pb.ListBudgetsRequest())).budgets
    assert [it.project for it in budgets] == ["", "projects/demo"]
