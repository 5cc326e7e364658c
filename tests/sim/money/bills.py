"""At a world's end: everything is invoiced, and verify-bill computes each invoice again."""

from __future__ import annotations

import base64
import json

from gridlease_billing.domain.invoice import as_json
from gridlease_billing.invoice import create_invoice, reports_of
from gridlease_billing.ports import Scope
from gridlease_billing.prices import list_prices
from gridlease_billing.rpc.shapes import tier_value
from gridlease_kernel.faults import Precondition
from gridlease_kernel.ids import RandomIds
from gridlease_verify.bill import Trust, check

from tests.sim.money.broken import insist


async def verified(run):
    """Bills all tenants; insists that an independent computation agrees."""
    books, town = run.town.books, run.town
    tenants = [it["tenant"] for it in await run.place.admin.fetch(
        "SELECT DISTINCT tenant FROM lease WHERE tenant <> ''")]  # fmt: skip
    prices = [
        {
            "version": it.version,
            "chip": it.chip,
            "tier": tier_value(it.tier),
            "price_nano_per_hour": it.price_nano_per_hour,
            "effective_ms": it.effective_ms,
        }
        for it in await list_prices(books, history=True)
    ]
    # What a node said and billing did not believe: the bill is less than what was signed.
    doubtful = town.oracle.lies | town.doubted | {it["lease"] for it in await run.place.admin.fetch(
        "SELECT lease FROM alarm WHERE kind = 'RUN_AHEAD_OF_TIME'")}  # fmt: skip
    for tenant in tenants:
        scope = Scope(tenant, "projects/p")
        try:
            invoice = await create_invoice(books, RandomIds(), scope, "end")
        except Precondition:
            continue
        insist(sum(it.amount_nano for it in invoice.lines) == invoice.total_nano, "not its lines")
        reports = [
            {
                "lease": it.lease,
                "segment": it.segment,
                "node": f"nodes/{it.node}",
                "node_key": it.node_key,
                "report": it.report,
                "signature": base64.b64encode(it.signature).decode(),
                "recorded_ms": it.recorded_ms,
            }
            for it in await reports_of(books, tenant, invoice.head.name)
        ]
        document = json.loads(as_json(invoice))
        evidence = {"invoice": document, "cited": {}, "reports": reports, "prices": prices}
        keys = {f"nodes/{it.name}": it.key for it in town.nodes.values() if it.key}
        found = check(evidence, Trust(keys, unsigned=True))
        named = [(it, document["lines"][it.line - 1] if it.line else {}) for it in found]
        wrong = [it for it in named if it[1].get("lease") not in doubtful]
        insist(not wrong, "verify-bill does not agree", len(wrong), wrong[:2])
        town.meet("bill verified")
        town.meet("line verified", len(invoice.lines))
