"""The commands about debts, payments and webhooks over time, through the door."""

import json

import pytest
from gridlease.gateway.v1 import contract_pb2 as more
from gridlease.gateway.v1 import gateway_pb2 as pb

from tests.integration.gateway.test_clients import cli


async def test_a_tenant_sees_what_it_owes_and_never_what_others_do(world):
    asked = world.billing.receivables.asked
    own, every = (world.stub("ReceivableService", it) for it in ("tenant_key", "operator_key"))
    for tenant in ("", "tenants/other"):
        await own.ListReceivables(more.ListReceivablesRequest(tenant=tenant))
        await own.GetReceivable(more.GetReceivableRequest(tenant=tenant, name="i-1"))
    assert {it.tenant for it in asked} == {"tenants/demo"}, "whatever it asks for"
    await every.ListReceivables(more.ListReceivablesRequest())
    assert asked[-1].tenant == ""
    await every.GetReceivable(more.GetReceivableRequest(tenant="tenants/other", name="i-1"))
    assert asked[-1].tenant == "tenants/other"


@pytest.mark.slow
async def test_a_tenant_looks_at_its_debts(world):
    code, out, _ = await cli(world, "receivables")
    assert (code, "GL-2026-000001" in out, "0.19 USD" in out) == (0, True, True)
    code, out, _ = await cli(world, "receivables", "show", "GL-2026-000001", "--json")
    assert (code, json.loads(out)["open_nano"]) == (0, "190000000")


@pytest.mark.slow
async def test_an_operator_writes_down_payments_refunds_and_terms(world):
    asked = world.billing.receivables.asked
    words = ["pay", "i-1", "--tenant", "demo", "--amount", "0.19", "--note", "bank 7"]
    code, out, _ = await cli(world, "receivables", *words, "--request-id", "p1", "--json")
    assert (code, json.loads(out)["receivable"]["state"]) == (0, "PAID")
    paid = asked[-1]
    assert (paid.tenant, paid.name, paid.amount_nano, paid.note, paid.request_id) == (
        "tenants/demo", "i-1", 190_000_000, "bank 7", "p1")  # fmt: skip
    code, out, _ = await cli(world, "receivables", "refund", "p1", "--tenant", "demo")
    assert (code, "refund of p1" in out) == (0, True)
    assert asked[-1].request_id, "made up, so that a retry is the same one"
    code, out, _ = await cli(world, "receivables", "terms")
    assert (code, "everybody" in out, "never" in out) == (0, True, True)
    words = ["terms", "set", "30", "--grace-days", "0", "--tenant", "demo", "--json"]
    code, out, _ = await cli(world, "receivables", *words)
    assert (code, json.loads(out)["grace_days"]) == (0, 0)
    assert asked[-1].HasField("grace_days")
    await cli(world, "receivables", "terms", "set", "30")
    assert not asked[-1].HasField("grace_days")


@pytest.mark.slow
async def test_webhooks_get_new_secrets_and_send_again(world):
    made = await world.stub("ReportService").CreateWebhook(
        pb.CreateWebhookRequest(url="http://127.0.0.1:9/", types=["nothing."])
    )
    name = made.webhook.name.removeprefix("webhooks/")
    code, out, _ = await cli(world, "webhooks", "secret", name, "--overlap", "1h", "--json")
    assert (code, json.loads(out)["secret"].startswith("whsec_")) == (0, True)
    code, out, _ = await cli(world, "webhooks", "replay", name, "--since", "6h")
    assert (code, out.strip()) == (0, "0 events wait to be sent again")
    code, out, _ = await cli(world, "webhooks", "dead")
    assert (code, "GIVEN UP" in out) == (0, True)


WRONG = [
    (["receivables", "show", "none"], 4, "INVOICE_NOT_FOUND"),
    (["receivables", "pay", "i-1", "--tenant", "no"], 4, "TENANT_NOT_FOUND"),
    (["receivables", "terms", "set", "9", "--tenant", "no"], 4, "TENANT_NOT_FOUND"),
    (["webhooks", "secret", "no"], 4, "WEBHOOK_NOT_FOUND"),
    (["webhooks", "replay", "no", "--id", "billing-1"], 4, "WEBHOOK_NOT_FOUND"),
    (["webhooks", "dead", "no"], 4, "WEBHOOK_NOT_FOUND"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code", "reason"), WRONG)
async def test_what_is_wrong_says_so(world, words, code, reason):
    found, _, err = await cli(world, *words, "--json")
    assert (found, reason in err) == (code, True), err
