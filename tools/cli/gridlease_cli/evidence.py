"""What verify-bill computes a bill from, through the API, as its file has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from gridlease.billing.v1 import account_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_sdk.client import Client

_PRICE = ("version", "chip", "tier", "site", "price_nano_per_hour")
_TARIFF = ("version", "meter", "site", "per", "minimum_nano", "pass_through")
_REPORT = ("lease", "segment", "part", "node", "node_key", "report")
_DRAW = (
    "commitment", "lease", "segment", "rate_nano_per_hour", "quantity_milli", "before_milli_ns",
    "milli_ns", "cover_nano",
)  # fmt: skip


async def collect(client: Client, name: str) -> dict[str, Any]:
    """The evidence of an invoice."""

    async def document(which: str) -> Any:
        file = await client.render_invoice(which, account_pb2.INVOICE_FORMAT_JSON)
        return json.loads(file.content)

    invoice = await document(name)
    cited = {str(it["cites"]).partition("#")[0] for it in invoice["lines"] if it.get("cites")}
    found = await client.list_evidence(invoice["name"])
    lines = invoice["lines"]
    return {
        "invoice": invoice,
        "cited": {it: await document(it) for it in sorted(cited - {invoice["name"]})},
        **_signed(found),
        **await _published(client),
        "jobs": await _priorities(client, lines),
    }


def _signed(found: pb.ListMeterReportsResponse) -> dict[str, Any]:
    return {
        "reports": [
            _of(it, _REPORT)
            | {"signature": base64.b64encode(it.signature).decode()}
            | {"recorded_ms": it.record_time.ToMilliseconds()}
            for it in found.reports
        ],
        "draws": [
            _of(it, _DRAW) | {"hour_ms": it.hour_time.ToMilliseconds()} for it in found.draws
        ],
    }


async def _published(client: Client) -> dict[str, Any]:
    """All versions of prices, multipliers, tariffs and taxes that were ever in force."""
    return {
        "prices": [
            _of(it, _PRICE) | {"effective_ms": it.effective_time.ToMilliseconds()}
            for it in await client.list_prices(history=True)
        ],
        "priorities": [
            {"version": it.version, "effective_ms": it.effective_time.ToMilliseconds()}
            | {"bands": [_of(band, ("above", "permille")) for band in it.bands]}
            for it in await client.list_priority_multipliers(history=True)
        ],
        "tariffs": [
            _of(it, _TARIFF) | {"steps": [_of(step, ("above", "price_nano")) for step in it.steps]}
            for it in await client.list_tariffs()
        ],
        "taxes": [
            _of(it, ("country", "permyriad")) | {"effective_ms": it.effective_time.ToMilliseconds()}
            for it in await client.list_tax_rates()
        ],
    }


async def _priorities(client: Client, lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The priorities of jobs whose lines bear a surcharge."""
    jobs = sorted({it["job"] for it in lines if it["meter"] == "run_priority"})
    return {job: (await client.get_job(job)).spec.priority for job in jobs}


def _of(message: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}
