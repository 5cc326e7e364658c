"""Is a bill what its signed meter reports and the published prices say?

Everything is computed again from docs/metering.md, docs/prices.md and docs/invoices.md, with
integers only; evidence is JSON. No code of billing is used: an error there cannot hide here.
What cannot be computed from the evidence is said to be so, line by line, and why.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gridlease_kernel import money
from gridlease_mesh import meter_report

Line = Mapping[str, Any]
_EXPONENT = {"USD": 2, "EUR": 2, "GBP": 2, "CNY": 2, "JPY": 0}
_TIERS = {1: "RESERVED", 2: "ON_DEMAND", 3: "SPOT"}
_CREDITS = ("reclaim_credit", "sla_credit", "promo_credit", "availability_credit")
_SLA_PERMILLE = (100, 250, 500)  # docs/prices.md: of what a lease whose node was lost had cost
_HOUR_MS, _HOUR_NS, _MS_NS = 3_600_000, 3_600 * 10**9, 10**6
_UNION = " AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK "


class Unchecked(str):
    """Why something cannot be checked."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not equal, or (``wrong`` False) cannot be checked; ``line`` 0 = the document."""

    line: int
    what: str
    wrong: bool = True


@dataclass(frozen=True, slots=True)
class Trust:
    """``keys``: a node's own key where the reader knows it, by "nodes/{node}"."""

    keys: Mapping[str, str] = field(default_factory=dict)
    unsigned: bool = False  # lines of nodes without a key may rest on billing's word
    ahead_ms: int = 2_000  # run time may be told so much before its time has passed here


def check(evidence: Mapping[str, Any], trust: Trust = Trust()) -> list[Finding]:
    """All that is not equal; nothing = the bill is right, as far as it can be checked."""
    return [it for it in examine(evidence, trust) if it.wrong]


def examine(evidence: Mapping[str, Any], trust: Trust = Trust()) -> list[Finding]:
    """All that is not equal, and all that cannot be checked."""
    try:
        bill = _Bill(evidence, trust)
        found = [*bill.lines(), *bill.sums(), *((0, it) for it in bill.tax())]
        return [Finding(at, str(it), not isinstance(it, Unchecked)) for at, it in found]
    except (KeyError, TypeError, ValueError, AssertionError, ArithmeticError, IndexError) as error:
        return [Finding(0, f"the evidence cannot be read: {type(error).__name__}: {error}")]


def signed(report: Mapping[str, Any]) -> bool:
    """Did the owner of its key sign it?"""
    return meter_report.holds(report["node_key"], report["report"], b64decode(report["signature"]))


def _meter(line: Line) -> str:
    return str(line["meter"]).partition("_")[0]  # what follows says which part of its line it is


def _late_ms(line: Line) -> int:
    """When a correction was written; 0 = it is none."""
    return int(f"{line['source']}/correction/0".split("/correction/")[1].split("/")[0])


class _Bill:
    def __init__(self, evidence: Mapping[str, Any], trust: Trust) -> None:
        self.all, self.trust, self.doc = evidence, trust, evidence["invoice"]
        docs = [*evidence.get("cited", {}).values(), self.doc]
        self.known = {f"{of['name']}#{it['position']}": it for of in docs for it in of["lines"]}
        self.off = {(it["lease"], it["segment"]): min(0, it["rate_nano_per_hour"])
                    for it in self.known.values() if it["meter"] == "run_priority"}  # fmt: skip
        self.runs: dict[str, list[Line]] = {}
        for it in self.known.values():
            if it["meter"] == "run" and it["kind"] in ("USAGE", "CORRECTION"):
                self.runs.setdefault(it["lease"], []).append(it)

    def segments(self, lease: str, until_ms: int = 2**63) -> dict[int, Line]:
        """Each segment's line that counts furthest, of those that were written by then."""
        lines = [it for it in self.runs.get(lease, ()) if _late_ms(it) <= until_ms]
        lines.sort(key=lambda it: (it["counter_ns"], it["before"]))
        return {it["segment"]: it for it in lines}

    def table(self, name: str) -> dict[int, Mapping[str, Any]]:
        return {it["version"]: it for it in self.all.get(name, ())}

    def lines(self) -> Iterator[tuple[int, str]]:
        rules = {"USAGE": self.usage, "CORRECTION": self.usage, "CREDIT": self.credit,
                 "PURCHASE": self.purchase, "CREDIT_NOTE": self.given_back,
                 "INFORMATION": self.told}  # fmt: skip
        seen: set[Any] = set()
        for line in self.doc["lines"]:
            identity = line["source"] or (line["kind"], line["cites"])
            rule = rules.get(line["kind"])
            found = ["it is there twice"] if identity in seen else []
            seen.add(identity)
            found += rule(line) if rule else [f"no rule knows the kind {line['kind']}"]
            yield from ((line["position"], it) for it in found)

    def told(self, line: Line) -> Iterator[str]:
        if line["amount_nano"] or line["rate_nano_per_hour"]:
            yield "what only tells of energy and carbon costs nothing"
        yield Unchecked("what it tells of energy and carbon is billing's word")

    def usage(self, line: Line) -> Iterator[str]:
        yield from self.proof(line)
        if line["meter"] in ("run", "run_priority"):
            yield from self.price(line) if line["meter"] == "run" else self.priority(line)
            yield from self.charge(line, self.segments(line["lease"], _late_ms(line)))
        elif line["amount_nano"] or line["rate_nano_per_hour"] or line["price_version"]:
            yield from self.tariff(line)

    def proof(self, line: Line) -> Iterator[str]:
        """Is the line's counter what its node signed, as far as time had passed?"""
        meter, counts = _meter(line), []
        for it in self.all["reports"]:
            part, late = it.get("part", ""), it.get("part", "").removeprefix("late/")
            fits = part in ("", meter) or line["source"].startswith("meter/")
            fits = fits or (part != late != "over" and int(late) <= _late_ms(line))
            if (it["lease"], it["segment"]) != (line["lease"], line["segment"]) or not fits:
                continue
            if not signed(it):
                yield "the signature under its report does not hold"
                return
            node = f"nodes/{line['node']}"
            if it["node"] != node or self.trust.keys.get(node, it["node_key"]) != it["node_key"]:
                yield f"its report is not signed with the key of {node}"
            lease, counters = meter_report.counted(it["report"])
            if lease != it["lease"]:
                yield "its report is none, or another lease's"
                return
            count = min(counters.get((line["segment"], meter), 0), 2**58)
            passed_ms = max(0, it["recorded_ms"] + self.trust.ahead_ms - line["starts_ms"])
            counts.append((min(count, passed_ms * _MS_NS) if meter == "run" else count, it))
        if not counts and not self.trust.unsigned and (line["charged_ns"] or line["amount_nano"]):
            yield "no signed report stands behind it"
        elif not counts:
            yield Unchecked("its counter is billing's word: its node has signed nothing")
        else:
            told, report = max(counts, key=lambda it: it[0])
            later = report["recorded_ms"] > self.doc["issued_ms"]
            if line["counter_ns"] > told or (line["counter_ns"] < told and not later):
                yield f"it counts {line['counter_ns']}, the signed report {told}"

    def price(self, line: Line) -> Iterator[str]:
        price = self.table("prices").get(line["price_version"])
        if price is None:
            yield f"there is no price version {line['price_version']}"
            return
        kind = (price["chip"], _TIERS.get(price["tier"]), price.get("site") or line["site"])
        if kind != (line["chip"], line["tier"], line["site"]):
            yield f"price version {price['version']} is of something else"
        elif price["effective_ms"] > max(line["starts_ms"], line["opened_ms"]):
            yield f"price version {price['version']} was not in force yet"
        rate = money.rate_nano_per_hour(price["price_nano_per_hour"], line["quantity_milli"])
        if rate != line["rate_nano_per_hour"]:
            yield f"its rate is {line['rate_nano_per_hour']}, by the price {rate}"

    def priority(self, line: Line) -> Iterator[str]:
        """What the published multiplier of the job's priority adds to the base rate."""
        table = self.table("priorities").get(line["price_version"])
        base = self.segments(line["lease"])[line["segment"]]["rate_nano_per_hour"]
        own = self.all.get("jobs", {}).get(line["job"])
        if table is None or table["effective_ms"] > max(line["starts_ms"], line["opened_ms"]):
            yield f"no table of priorities {line['price_version']} was in force"
            return
        bands = [it for it in table["bands"] if own is None or it["above"] <= max(0, own)]
        adds = [base * (it["permille"] - 1_000) // 1_000 for it in bands]
        if line["rate_nano_per_hour"] not in (adds if own is None else adds[-1:]):
            yield f"its surcharge is {line['rate_nano_per_hour']}, by the table {adds}"
        elif own is None:
            yield Unchecked("the priority of its job is billing's word")

    def charge(self, line: Line, segments: Mapping[int, Line]) -> Iterator[str]:
        """Is what it charges the lesser of counted and granted, at its rate?"""
        if line["granted_ns"] != (line["ends_ms"] - line["starts_ms"]) * _MS_NS:
            yield "what was granted is not the time from its start to its end"
        every = sorted({**segments, line["segment"]: line}.items())
        left, spans = (every[-1][1]["ends_ms"] - every[0][1]["starts_ms"]) * _MS_NS, {}
        for number, it in every:
            spans[number] = min(it["counter_ns"], it["granted_ns"], left)
            left -= spans[number]
        due = spans[line["segment"]]
        before, after = line["before"], line["before"] + line["charged_ns"]
        least = self.known.get(line["cites"], {"charged_ns": 0})["charged_ns"]
        if before < least or (line["kind"] == "USAGE" and before):
            yield f"it charges from {before} on, charged before were {least}"
        if after != due:
            yield f"it charges up to {after} ns, due are {due}"
        of, rate = segments[line["segment"]]["rate_nano_per_hour"], line["rate_nano_per_hour"]
        low, high = (of, of + rate) if line["meter"] == "run_priority" else (0, rate)
        costs = [money.amount_nano(of, max(0, ns)) for of in (low, high) for ns in (before, after)]
        amount = costs[0] - costs[1] - costs[2] + costs[3]
        if amount != line["amount_nano"]:
            yield f"its amount is {line['amount_nano']}, by rate and time {amount}"

    def tariff(self, line: Line) -> Iterator[str]:
        """The price of the month's total with it, less that without it."""
        it = self.table("tariffs").get(line["price_version"])
        if it is None or it["meter"] != _meter(line) or it["site"] not in ("", line["site"]):
            yield f"no tariff prices the meter {line['meter']}"
            return
        month, _, before = line["note"].partition("month ")[2].partition(" after ")
        count = line["charged_ns"]
        if line["before"] + count != line["counter_ns"]:
            yield f"it charges up to {line['before'] + count}, counted were {line['counter_ns']}"
        if it["pass_through"]:
            yield Unchecked("the site's price of energy by the hour is billing's word")
        elif it["meter"] == "run":
            parts = [(each["meter"] == line["meter"], each["amount_nano"])
                     for each in self.known.values()
                     if (each["lease"], _meter(each)) == (line["lease"], "run")
                     and each["kind"] in ("USAGE", "CORRECTION")]  # fmt: skip
            due = max(0, it["minimum_nano"] - sum(nano for least, nano in parts if not least))
            if sum(nano for least, nano in parts if least) != due:
                yield f"its lease comes to its minimum with {due}"
        elif not month:
            yield Unchecked("how much of its month came before it is not on it")
        else:
            part = line["meter"].partition("_")[2] == "minimum"
            due = _of_month(it, int(before) + count)[part] - _of_month(it, int(before))[part]
            if line["amount_nano"] != due:
                yield f"its amount is {line['amount_nano']}, by tariff {due}"
            same = [each for each in self.known.values() if each["price_version"] == it["version"]
                    and f"month {month} " in each["note"]]  # fmt: skip
            ends = [int(it["note"].rpartition(" ")[2]) + it["charged_ns"] for it in same]
            if int(before) not in (0, *ends):
                yield Unchecked("what came before it in its month stands on another bill")

    def purchase(self, line: Line) -> Iterator[str]:
        """A pot costs its rate by the hour; its parts are what was drawn, and the rest."""
        hours, rest = divmod(line["ends_ms"] - line["starts_ms"], _HOUR_MS)
        size = line["quantity_milli"] * _HOUR_NS * hours
        used = sum(it["milli_ns"] for it in self.drawn(line))
        fee = line["rate_nano_per_hour"] * hours
        part = fee * used // size if size else 0
        due = part if line["note"] == "used" else fee - part
        if rest or not 0 <= used <= size or line["amount_nano"] != due:
            yield f"its amount is {line['amount_nano']}, by hours and draws {due}"
        # It keeps the price of the moment in which it was bought, in its first hour at the latest.
        yield from self.price({**line, "starts_ms": line["starts_ms"] + _HOUR_MS})

    def drawn(self, line: Line) -> list[Mapping[str, Any]]:
        return [it for it in self.all.get("draws", ()) if it["commitment"] == line["lease"]
                and line["starts_ms"] <= it["hour_ms"] < line["ends_ms"]]  # fmt: skip

    def credit(self, line: Line) -> Iterator[str]:
        if line["amount_nano"] > 0 or line["note"] not in (*_CREDITS, "commitment_cover"):
            yield "it is no credit"
        elif line["note"] == "commitment_cover":
            yield from self.cover(line)
        elif line["note"] == "availability_credit":
            runs = [(it["kind"] == "USAGE", it["amount_nano"]) for it in self.known.values()
                    if it["lease"] == line["lease"]
                    and it["meter"] in ("run", "run_priority")]  # fmt: skip
            costs = (sum(it for usage, it in runs if usage), sum(it for _, it in runs))
            due = [cost * it // 1_000 for cost in costs for it in _SLA_PERMILLE]
            if runs and -line["amount_nano"] not in due:
                yield "it is no part of its lease's cost that the table names"
            yield Unchecked("how much of the month leases were there is billing's word")
        else:
            yield Unchecked("its cause is billing's word, in your favour")

    def cover(self, line: Line) -> Iterator[str]:
        """What the usage that a pot covers had been charged: of totals, draw by draw."""
        due = 0
        for it in self.drawn(line):
            rate, size = it["rate_nano_per_hour"], it["quantity_milli"]
            due += money.amount_nano(rate, (it["before_milli_ns"] + it["milli_ns"]) // size)
            due -= money.amount_nano(rate, it["before_milli_ns"] // size)
            run = self.segments(it["lease"]).get(it["segment"])
            if run is None:
                yield Unchecked(f"what lease {it['lease']} was charged stands on another bill")
            elif rate != run["rate_nano_per_hour"] + self.off.get((it["lease"], it["segment"]), 0):
                yield f"it gives lease {it['lease']} back at another rate than it was charged"
        if line["amount_nano"] != -due:
            yield f"its amount is {line['amount_nano']}, by draws {-due}"

    def given_back(self, line: Line) -> Iterator[str]:
        original = self.known.get(line["cites"])
        if original is None:
            yield f"it cites {line['cites']}, which is not there"
            return
        net, tax = -line["amount_nano"], -line["tax_nano"]
        all_net, all_tax = (max(0, original[name]) for name in ("billed_nano", "tax_nano"))
        if not (0 <= net <= all_net and 0 <= tax <= all_tax):
            yield "it gives back more than its line asked for"
        elif (net, tax) != (all_net, all_tax):
            yield Unchecked("what earlier notes left of its line stands on them")

    def sums(self) -> Iterator[tuple[int, str]]:
        doc, lines, tax = self.doc, self.doc["lines"], self.doc["tax"]
        step = 10 ** (9 - _EXPONENT[doc["currency"]])
        amounts = [it["amount_nano"] for it in lines]
        net = money.Money(sum(amounts), doc["currency"]).rounded(_EXPONENT[doc["currency"]]).nano
        if doc["kind"] == "CREDIT_NOTE":
            billed, taxes = amounts, [it["tax_nano"] for it in lines]
        else:
            billed = money.largest_remainder(amounts, step)
            shares = [it * tax["permyriad"] // 10_000 for it in billed]
            taxes = money.largest_remainder(shares, step)
        for line, share, part in zip(lines, billed, taxes, strict=True):
            if (line["billed_nano"], line["tax_nano"]) != (share, part):
                yield line["position"], f"billed are {share} and {part} of tax"
        asked = {"total_nano": sum(amounts), "net_nano": net, "tax_nano": sum(taxes)}
        asked["payable_nano"] = net + asked["tax_nano"]
        for name, value in asked.items():
            if doc[name] != value:
                yield 0, f"{name} is {doc[name]}, its lines say {value}"
        said = {key: value for key, value in doc.items() if key != "content_sha256"}
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(text.encode()).hexdigest() != doc["content_sha256"]:
            yield 0, "the digest is of another content"

    def tax(self) -> Iterator[str]:
        """Which tax it bears: by where both are, and by the published rates."""
        seller, buyer, tax = self.doc["seller"], self.doc["buyer"], self.doc["tax"]
        here = buyer["country"] or seller["country"]
        union = f" {here} " in _UNION and f" {seller['country']} " in _UNION
        due = "STANDARD" if seller["tax_id"] else "NONE"
        if due == "STANDARD" and here != seller["country"]:
            due = "OUTSIDE" if not union else "REVERSE_CHARGE" if buyer["tax_id"] else due
        # A credit note gives back the tax of the invoice that it cites, whatever the rate is now.
        of = self.all.get("cited", {}).get(self.doc["cites"], self.doc)
        rates = [(it["effective_ms"], it["permyriad"]) for it in self.all.get("taxes", ())
                 if it["country"] == here and it["effective_ms"] <= of["issued_ms"]]  # fmt: skip
        rate = 0 if due != "STANDARD" else max(rates)[1] if rates else None
        if due == tax["treatment"] == "STANDARD" and "taxes" not in self.all:
            yield Unchecked("no table of taxes is with it")
        elif (tax["treatment"], tax["permyriad"]) != (due, rate):
            told = f"by both parties {due}, by the table of {here} {rate}"
            yield f"its tax is {tax['treatment']} {tax['permyriad']}, {told}"


def _of_month(tariff: Mapping[str, Any], total: int) -> tuple[int, int]:
    """What a month's total costs: its steps, rounded down once; what a minimum adds, once used."""
    ends = [*(it["above"] for it in tariff["steps"][1:]), total]
    steps = zip(tariff["steps"], ends, strict=True)
    exact = sum(max(0, min(total, end) - it["above"]) * it["price_nano"] for it, end in steps)
    stepped = exact // tariff["per"]
    return stepped, max(0, tariff["minimum_nano"] - stepped) if total else 0
