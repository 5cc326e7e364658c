"""Is a bill what its signed meter reports and the published prices say?

Everything is computed again from docs/metering.md and docs/invoices.md, with integers only:
signatures, counters, charges, amounts, roundings, tax, sums and digest; evidence is JSON. No code
of billing is used: an error there cannot hide here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gridlease.billing.v1 import account_pb2
from gridlease_kernel import money
from gridlease_sdk.client import Client
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

Line = Mapping[str, Any]
Key = tuple[str, int]  # lease, segment
_EXPONENT = {"USD": 2, "EUR": 2, "GBP": 2, "CNY": 2, "JPY": 0}
_TIERS = {1: "RESERVED", 2: "ON_DEMAND", 3: "SPOT"}
_CREDITS = {"reclaim_credit", "sla_credit", "promo_credit", "commitment_cover"}
_WHERE = ("lease", "segment", "meter")
_TARIFF = ("version", "meter", "per", "minimum_nano", "pass_through")
_HEAD = "gridlease meter report 1"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not equal; ``line`` 0 = the document as a whole."""

    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Trust:
    """``keys``: a node's own key where the reader knows it, by "nodes/{node}"."""

    keys: Mapping[str, str] = field(default_factory=dict)
    unsigned: bool = False  # lines of nodes without a key may rest on billing's word


async def collect(client: Client, name: str) -> dict[str, Any]:
    """The evidence of an invoice, through the API."""

    async def document(which: str) -> Any:
        file = await client.render_invoice(which, account_pb2.INVOICE_FORMAT_JSON)
        return json.loads(file.content)

    invoice = await document(name)
    cited = {str(it["cites"]).partition("#")[0] for it in invoice["lines"] if it.get("cites")}
    return {
        "invoice": invoice,
        "cited": {it: await document(it) for it in sorted(cited - {invoice["name"]})},
        "reports": [
            {name: getattr(it, name) for name in ("lease", "segment", "node", "node_key", "report")}
            | {"signature": base64.b64encode(it.signature).decode()}
            | {"recorded_ms": it.record_time.ToMilliseconds()}
            for it in await client.list_meter_reports(invoice["name"])
        ],
        "prices": [
            {name: getattr(it, name) for name in ("version", "chip", "tier", "price_nano_per_hour")}
            | {"effective_ms": it.effective_time.ToMilliseconds()}
            for it in await client.list_prices(history=True)
        ],
        "tariffs": [
            {name: getattr(it, name) for name in _TARIFF}
            | {"prices_nano": [step.price_nano for step in it.steps]}
            for it in await client.list_tariffs()
        ],
    }


def check(evidence: Mapping[str, Any], trust: Trust = Trust()) -> list[Finding]:
    """All that is not equal; nothing = the bill is right."""
    invoice = evidence["invoice"]
    try:
        return [*_lines(evidence, trust), *_sums(invoice), *_digest(invoice)]
    except (KeyError, TypeError, ValueError, AssertionError, ArithmeticError) as error:
        return [Finding(0, f"the evidence cannot be read: {type(error).__name__}: {error}")]


def counters_of(report: Mapping[str, Any]) -> dict[tuple[int, str], int]:
    """What a report's text counts, by segment and meter; ValueError: it is none of this lease."""
    head, lease, *rest = str(report["report"]).splitlines()
    if head != _HEAD or lease != f"lease {report['lease']}":
        raise ValueError("not a report of this lease")
    words = [line.split(" ") for line in rest]
    return {(int(it[1]), it[2]): int(it[3]) for it in words if it[0] == "counter"}


def signed(report: Mapping[str, Any]) -> bool:
    """Did the owner of its key sign it? Ed25519; a key is base32 of prefix, 32 bytes, check sum."""
    key = str(report["node_key"])
    try:
        raw = base64.b32decode(key + "=" * (-len(key) % 8))
        VerifyKey(raw[1:33]).verify(
            report["report"].encode(), base64.b64decode(report["signature"])
        )
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def _lines(evidence: Mapping[str, Any], trust: Trust) -> Iterator[Finding]:
    invoice = evidence["invoice"]
    reports = {(it["lease"], it["segment"]): it for it in evidence["reports"]}
    prices = {it["version"]: it for it in evidence["prices"]}
    cited = evidence.get("cited", {}).values()
    known = {f"{doc['name']}#{it['position']}": it for doc in cited for it in doc["lines"]}
    context = _segments([*known.values(), *invoice["lines"]])
    seen: set[tuple[Any, ...]] = set()
    for line in invoice["lines"]:
        identity = (line["kind"], line["lease"], line["segment"], line["meter"], line["source"])
        troubles = ["it is there twice"] if identity in seen else []
        seen.add(identity)
        if line["kind"] in ("USAGE", "CORRECTION"):
            troubles += _proof(line, invoice, reports, trust)
            if line["meter"] == "run":
                troubles += _price(line, prices)
                troubles += _charge(line, context[line["lease"]], known)
            elif line["amount_nano"] or line["rate_nano_per_hour"]:
                troubles += _tariff(line, evidence.get("tariffs", ()), trust)
        elif line["kind"] == "CREDIT":
            if line["amount_nano"] > 0 or line["note"] not in _CREDITS:
                troubles.append("it is no credit")
        elif line["kind"] == "PURCHASE":
            troubles += _purchase(line, invoice["lines"], prices)
        elif line["kind"] == "CREDIT_NOTE":
            troubles += _given_back(line, known)
        else:
            troubles.append(f"no rule knows the kind {line['kind']}")
        yield from (Finding(line["position"], it) for it in troubles)


def _segments(lines: Iterable[Line]) -> dict[str, dict[int, Line]]:
    """Of each lease, each segment's line that counts furthest."""
    found: dict[str, dict[int, Line]] = {}
    for it in lines:
        if it["meter"] == "run" and it["kind"] in ("USAGE", "CORRECTION"):
            mine = found.setdefault(it["lease"], {})
            last = mine.setdefault(it["segment"], it)
            if (last["counter_ns"], last["before"]) <= (it["counter_ns"], it["before"]):
                mine[it["segment"]] = it
    return found


def _proof(
    line: Line, invoice: Mapping[str, Any], reports: Mapping[Key, Any], trust: Trust
) -> Iterator[str]:
    """Is the line's counter what its node signed?"""
    report = reports.get((line["lease"], line["segment"]))
    if report is None:
        if not trust.unsigned and (line["charged_ns"] or line["amount_nano"]):
            yield "no signed report stands behind it"
        return
    if not signed(report):
        yield "the signature under its report does not hold"
        return
    node = f"nodes/{line['node']}"
    if report["node"] != node or trust.keys.get(node, report["node_key"]) != report["node_key"]:
        yield f"its report is not signed with the key of {node}"
    try:
        told = counters_of(report).get((line["segment"], line["meter"]), 0)
    except (ValueError, IndexError):
        yield "its report is none, or another lease's"
        return
    same = [it for it in invoice["lines"] if all(it[name] == line[name] for name in _WHERE)]
    last = max(it["counter_ns"] for it in same)
    later = report["recorded_ms"] > invoice["issued_ms"]
    if last > told or (last < told and not later):
        yield f"it counts {last}, the signed report {told}"


def _price(line: Line, prices: Mapping[int, Any]) -> Iterator[str]:
    price = prices.get(line["price_version"])
    if price is None:
        yield f"there is no price version {line['price_version']}"
        return
    if (price["chip"], _TIERS.get(price["tier"])) != (line["chip"], line["tier"]):
        yield f"price version {price['version']} is of something else"
    if price["effective_ms"] > line["starts_ms"]:
        yield f"price version {price['version']} was not in force yet"
    rate = money.rate_nano_per_hour(price["price_nano_per_hour"], line["quantity_milli"])
    if rate != line["rate_nano_per_hour"]:
        yield f"its rate is {line['rate_nano_per_hour']}, by the price {rate}"


def _tariff(line: Line, tariffs: Iterable[Mapping[str, Any]], trust: Trust) -> Iterator[str]:
    """Other meters go by a month's total: each line lies between its cheapest and dearest step."""
    known = next((it for it in tariffs if it["version"] == line["price_version"]), None)
    if known is None or known["meter"] != line["meter"]:
        yield f"no tariff prices the meter {line['meter']}"
    elif known["pass_through"]:
        if not trust.unsigned:
            yield "the site's price of energy is billing's word"
    else:
        prices, count, per = known["prices_nano"], line["charged_ns"], known["per"]
        least = 0 if known["minimum_nano"] else min(prices) * count // per
        most = -(-max(prices) * count // per) + known["minimum_nano"]
        if not least <= line["amount_nano"] <= most or count > line["counter_ns"]:
            yield f"its amount is {line['amount_nano']}, by tariff {least} to {most}"


def _charge(line: Line, segments: Mapping[int, Line], known: Mapping[str, Line]) -> Iterator[str]:
    """Is what it charges the lesser of counted and granted, and its amount the rate times it?"""
    if line["granted_ns"] != (line["ends_ms"] - line["starts_ms"]) * 1_000_000:
        yield "what was granted is not the time from its start to its end"
    order = sorted(segments)
    left = (segments[order[-1]]["ends_ms"] - segments[order[0]]["starts_ms"]) * 1_000_000
    due = 0
    for number in order:
        it = line if number == line["segment"] else segments[number]
        ns = min(it["counter_ns"], it["granted_ns"], left)
        left -= ns
        if number == line["segment"]:
            due = ns
    before, after = line["before"], line["before"] + line["charged_ns"]
    original = known.get(line["cites"])
    if line["kind"] == "USAGE" and before:
        yield "usage begins at nothing"
    if original is not None and before < original["charged_ns"]:
        yield "it charges again what its original charged"
    if after != due:
        yield f"it charges up to {after} ns, due are {due}"
    rate = line["rate_nano_per_hour"]
    amount = money.amount_nano(rate, max(0, after)) - money.amount_nano(rate, max(0, before))
    if amount != line["amount_nano"]:
        yield f"its amount is {line['amount_nano']}, by rate and time {amount}"


def _purchase(line: Line, lines: Iterable[Line], prices: Mapping[int, Any]) -> Iterator[str]:
    """A pot costs its rate by the hour, used or not."""
    hours, rest = divmod(line["ends_ms"] - line["starts_ms"], 3_600_000)
    of_pot = [it for it in lines if (it["kind"], it["lease"]) == ("PURCHASE", line["lease"])]
    parts = [it["amount_nano"] for it in of_pot]
    if rest or min(parts) < 0 or sum(parts) != line["rate_nano_per_hour"] * hours:
        yield "the parts of its pot are not rate times hours"
    # It keeps the price of the moment in which it was bought, in its first hour at the latest.
    yield from _price({**line, "starts_ms": line["starts_ms"] + 3_600_000}, prices)


def _given_back(line: Line, known: Mapping[str, Line]) -> Iterator[str]:
    original = known.get(line["cites"])
    if original is None:
        yield f"it cites {line['cites']}, which is not there"
    elif not 0 <= -line["amount_nano"] <= max(0, original["billed_nano"]) or not 0 <= -line[
        "tax_nano"
    ] <= max(0, original["tax_nano"]):
        yield "it gives back more than its line asked for"


def _sums(invoice: Mapping[str, Any]) -> Iterator[Finding]:
    lines = invoice["lines"]
    exponent = _EXPONENT[invoice["currency"]]
    step, tax = 10 ** (9 - exponent), invoice["tax"]
    amounts = [it["amount_nano"] for it in lines]
    net = money.Money(sum(amounts), invoice["currency"]).rounded(exponent).nano
    if invoice["kind"] == "CREDIT_NOTE":
        billed, taxes = amounts, [it["tax_nano"] for it in lines]
    else:
        billed = money.largest_remainder(amounts, step)
        if tax["permyriad"] and tax["treatment"] != "STANDARD":
            yield Finding(0, f"{tax['treatment']} bears no tax")
        taxes = money.largest_remainder([it * tax["permyriad"] // 10_000 for it in billed], step)
    for line, share, part in zip(lines, billed, taxes, strict=True):
        if (line["billed_nano"], line["tax_nano"]) != (share, part):
            yield Finding(line["position"], f"billed are {share} and {part} of tax")
    asked = {"total_nano": sum(amounts), "net_nano": net, "tax_nano": sum(taxes)}
    asked["payable_nano"] = net + asked["tax_nano"]
    for name, value in asked.items():
        if invoice[name] != value:
            yield Finding(0, f"{name} is {invoice[name]}, its lines say {value}")


def _digest(invoice: Mapping[str, Any]) -> Iterator[Finding]:
    said = {key: value for key, value in invoice.items() if key != "content_sha256"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != invoice["content_sha256"]:
        yield Finding(0, "the digest is of another content")
