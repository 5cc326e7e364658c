"""The commands about documents and taxes, through the door."""

import json

import pytest

from tests.integration.gateway.test_clients import cli


async def test_a_tenant_looks_at_its_documents(world, tmp_path):
    code, out, _ = await cli(world, "invoices")
    assert code == 0
    assert "GL-2026-000001" in out
    for words in (["create", "--draft"], ["show", "i-1"], ["finalize", "i-1"]):
        code, out, _ = await cli(world, "invoices", *words)
        assert (code, "GL-2026-000001" in out) == (0, True), words
    path = tmp_path / "bill"
    words = ["download", "i-1", "--as", "focus", "--language", "zh", "--to", str(path)]
    code, out, _ = await cli(world, "invoices", *words)
    assert (code, path.read_bytes()) == (0, b"%PDF-")
    code, out, _ = await cli(world, "taxes", "profile", "--json")
    assert json.loads(out)["country"] == "DE"


async def test_an_operator_writes_taxes_and_gives_back(world):
    code, out, _ = await cli(
        world, "invoices", "credit", "i-1", "--tenant", "demo", "--reason", "late", "--json"
    )
    assert json.loads(out)["cites"] == "invoices/i-1"
    words = ["set-profile", "demo", "--country", "CN", "--language", "zh", "--name", "甲"]
    code, out, _ = await cli(world, "taxes", *words)
    assert (code, "甲" in out) == (0, True)
    code, out, _ = await cli(world, "taxes", "entities")
    assert "default" in out
    words = ["set-entity", "berlin", "--prefix", "GB", "--country", "DE", "--json"]
    code, out, _ = await cli(world, "taxes", *words)
    assert json.loads(out)["prefix"] == "GB"
    words = ["add-rate", "PL", "2300", "--from", "2011-01-01", "--source", "a law"]
    code, out, _ = await cli(world, "taxes", *words)
    assert (code, "23 %" in out) == (0, True)
    assert (await cli(world, "taxes", "rates"))[0] == 0


async def test_an_operator_sees_suspense_and_writes_it_off(world):
    code, out, _ = await cli(world, "books", "suspense")
    assert (code, "RUN_BEYOND_GRANT" in out) == (0, True)
    code, out, _ = await cli(world, "books", "suspense", "--tenant", "demo", "--all", "--json")
    assert json.loads(out)[0]["lease"] == "l1"
    asked = world.billing.reports.asked[-1]
    assert (asked.tenant, asked.closed) == ("tenants/demo", True)
    words = ["write-off", "l1", "--note", "a slow kill", "--request-id", "w1", "--json"]
    code, out, _ = await cli(world, "books", *words)
    assert (code, json.loads(out)["amount_nano"]) == (0, "5")
    asked = world.billing.reports.asked[-1]
    assert (asked.lease, asked.note, asked.request_id) == ("l1", "a slow kill", "w1")
    code, out, _ = await cli(world, "books", "check")
    assert (code, "without an alarm" in out) == (0, True)


WRONG = [
    (["invoices", "show", "none"], 4, "INVOICE_NOT_FOUND"),
    (["invoices", "finalize", "none"], 4, "INVOICE_NOT_FOUND"),
    (["invoices", "download", "i-1", "--as", "doc"], 3, "UNKNOWN_VALUE"),
    (["invoices", "download", "i-1", "--language", "fr"], 3, "RULE_VIOLATED"),
    (["invoices", "credit", "i-1", "--tenant", "no", "--reason", "x"], 4, "TENANT_NOT_FOUND"),
    (["taxes", "set-profile", "no"], 4, "TENANT_NOT_FOUND"),
    (["taxes", "set-profile", "demo", "--country", "germany"], 3, "RULE_VIOLATED"),
    (["taxes", "set-entity", "x", "--prefix", "lower"], 3, "RULE_VIOLATED"),
    (["taxes", "add-rate", "DE", "1900", "--from", "soon", "--source", "x"], 3, "BAD_DAY"),
    (["books", "write-off", "l1", "--note", ""], 3, "RULE_VIOLATED"),
    (["verify-bill"], 3, "INVOICE_MISSING"),
    (["verify-bill", "none"], 4, "INVOICE_NOT_FOUND"),
    (["verify-bill", "--evidence", "/nowhere/x"], 6, "FILE_UNREADABLE"),
    (["verify-bill", "i-1", "--node-key", "n1"], 3, "BAD_NODE_KEY"),
]


@pytest.mark.parametrize(
    "some", [WRONG[::4], pytest.param(WRONG, marks=pytest.mark.slow)], ids=["some", "all"]
)
async def test_what_cannot_be_done_is_said(world, some):
    for words, code, reason in some:
        found, out, err = await cli(world, *words, "--json")
        assert (found, reason in out + err) == (code, True), (words, out, err)
