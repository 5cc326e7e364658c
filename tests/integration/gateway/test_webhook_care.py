"""Webhooks over time: secrets that change, events sent again, and what was given up."""

import base64

import grpc
import pytest
from gridlease.gateway.v1 import contract_pb2 as more
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_gateway import webhooks
from gridlease_gateway.domain.webhooks import signature
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually

from tests.integration.gateway.test_webhooks import notice, receiver

__all__ = ["receiver"]


def ids(receiver):
    return [headers["webhook-id"] for _, headers, _ in receiver.got]


def key(secret):
    return base64.b64decode(secret.removeprefix("whsec_"))


def signed(receiver, at):
    """What the header of a message should be, by secrets."""
    _, headers, body = receiver.got[at]
    stamp = int(headers["webhook-timestamp"])
    return headers["webhook-signature"].split(" "), lambda secret: signature(
        key(secret), headers["webhook-id"], stamp, body
    )


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The loop looks often, so that no test waits for it."""
    monkeypatch.setattr(webhooks, "_IDLE_S", 0.05)


async def refused(call, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert fault_from_error(caught.value).reason == reason


@pytest.fixture
async def hook(world, receiver):
    return await world.stub("ReportService").CreateWebhook(
        pb.CreateWebhookRequest(url=receiver.url, types=["budget."])
    )


async def test_two_secrets_sign_for_as_long_as_they_overlap(world, receiver, hook):
    care, feed = world.stub("WebhookService"), world.billing.reports
    feed.notices = [notice(1)]
    await eventually(lambda: len(receiver.got) == 1, 20.0)
    assert len(signed(receiver, 0)[0]) == 1
    asked = more.CreateWebhookSecretRequest(name=hook.webhook.name, overlap_ms=3_600_000)
    second = await care.CreateWebhookSecret(asked)
    assert second.secret != hook.secret
    feed.notices = [*feed.notices, notice(2)]
    await eventually(lambda: len(receiver.got) == 2, 20.0)
    words, right = signed(receiver, 1)
    assert words == [right(second.secret), right(hook.secret)]
    third = await care.CreateWebhookSecret(
        more.CreateWebhookSecretRequest(name=hook.webhook.name)  # no overlap: the old ones are gone
    )
    feed.notices = [*feed.notices, notice(3)]
    await eventually(lambda: len(receiver.got) == 3, 20.0)
    words, right = signed(receiver, 2)
    assert words == [right(third.secret)]


async def test_events_are_sent_again_under_the_ids_that_they_had(
    world, receiver, hook, monkeypatch
):
    care = world.stub("WebhookService")
    world.billing.reports.notices = [notice(1), notice(2, "cost.anomaly"), notice(3), notice(4)]
    await eventually(lambda: ids(receiver) == ["billing-1", "billing-3", "billing-4"], 20.0)
    name = hook.webhook.name
    one = more.CreateWebhookReplayRequest(name=name, message_id="billing-3")
    assert (await care.CreateWebhookReplay(one)).waiting_count == 1
    await eventually(lambda: ids(receiver)[3:] == ["billing-3"], 20.0)
    assert receiver.got[3][2] == receiver.got[1][2], "the same event, the same body"
    monkeypatch.setattr(webhooks, "pause_s", lambda _failures: 0.1)
    receiver.answers = ["500 Oh"]
    every = more.CreateWebhookReplayRequest(name=name)
    every.start_time.FromMilliseconds(1)
    assert (await care.CreateWebhookReplay(every)).waiting_count == 3
    await eventually(lambda: len(receiver.got) == 8, 30.0)
    assert sorted(ids(receiver)[4:]) == ["billing-1", "billing-1", "billing-3", "billing-4"]
    world.billing.reports.notices = [*world.billing.reports.notices, notice(5)]
    await eventually(lambda: ids(receiver)[8:] == ["billing-5"], 20.0)
    await refused(care.CreateWebhookReplay(more.CreateWebhookReplayRequest(name=name)),
        "REPLAY_NAMES_NOTHING")  # fmt: skip
    gone = more.CreateWebhookReplayRequest(name=name, message_id="billing-99")
    await refused(care.CreateWebhookReplay(gone), "EVENT_NOT_FOUND")
    later = more.CreateWebhookReplayRequest(name=name)
    later.start_time.FromMilliseconds(4_102_444_800_000)
    assert (await care.CreateWebhookReplay(later)).waiting_count == 0


async def test_what_is_given_up_is_told_and_can_be_sent_after_all(
    world, receiver, hook, monkeypatch
):
    monkeypatch.setattr(webhooks, "MOST_TRIES", 2)
    monkeypatch.setattr(webhooks, "pause_s", lambda _failures: 0.1)
    receiver.answers = ["500 Oh", "503 No"]
    world.billing.reports.notices = [notice(1), notice(2)]
    await eventually(lambda: ids(receiver) == ["billing-1", "billing-1", "billing-2"], 30.0)
    care = world.stub("WebhookService")
    asked = more.ListDeadLettersRequest(page_size=1)
    for key_ in ("tenant_key", "operator_key"):
        told = await world.stub("WebhookService", key_).ListDeadLetters(asked)
        (letter,) = told.letters
        assert (letter.webhook, letter.message_id) == (hook.webhook.name, "billing-1")
        assert (letter.project, letter.type, letter.tries) == (
            "projects/demo", "budget.threshold", 2)  # fmt: skip
        assert "503" in letter.last_error
        assert not letter.HasField("taken_time")
    replay = more.CreateWebhookReplayRequest(name=letter.webhook, message_id="billing-1")
    await care.CreateWebhookReplay(replay)
    await eventually(lambda: ids(receiver)[3:] == ["billing-1"], 20.0)

    async def taken():
        (letter,) = (await care.ListDeadLetters(asked)).letters
        return letter.HasField("taken_time")

    await eventually(taken, 20.0)


async def test_another_projects_webhook_answers_as_a_missing_one(world):
    care = world.stub("WebhookService")
    for call in (
        care.CreateWebhookSecret(more.CreateWebhookSecretRequest(name="webhooks/wh-x")),
        care.CreateWebhookReplay(
            more.CreateWebhookReplayRequest(name="webhooks/wh-x", message_id="billing-1")
        ),
        care.ListDeadLetters(more.ListDeadLettersRequest(name="webhooks/wh-x")),
    ):
        await refused(call, "WEBHOOK_NOT_FOUND")
