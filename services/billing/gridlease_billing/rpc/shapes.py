"""Billing's values as protobuf has them, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from gridlease.billing.v1 import account_pb2, lease_pb2
from gridlease.type.v1 import job_pb2, money_pb2
from gridlease_kernel.faults import Invalid
from gridlease_mesh import meter_report

from gridlease_billing.domain.admission import LONGEST_NOTICE_MS
from gridlease_billing.domain.book import Span
from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.grant_row import Answer, Ask, Phase, Report
from gridlease_billing.domain.price import CURRENCY, Price, Tier
from gridlease_billing.domain.priority import PriorityTable
from gridlease_billing.domain.spot import ChipUse
from gridlease_billing.domain.usage import Line
from gridlease_billing.ports import Scope, Wallet
from gridlease_billing.prices import Look
from gridlease_billing.quote import Question, Quoted

_TIERS: Mapping[int, Tier] = {
    job_pb2.TIER_UNSPECIFIED: Tier.ON_DEMAND,
    job_pb2.TIER_RESERVED: Tier.RESERVED,
    job_pb2.TIER_ON_DEMAND: Tier.ON_DEMAND,
    job_pb2.TIER_SPOT: Tier.SPOT,
}
_NODE = "nodes/"
_MOST = 2**62  # of what a page token may say: as the books can have it


def tier(value: int) -> str:
    """A tier's name; not said = on-demand.

    Raises:
        Invalid: UNKNOWN_TIER.
    """
    found = _TIERS.get(value)
    if found is None:
        raise Invalid(
            f"There is no tier {value}.",
            reason="UNKNOWN_TIER",
            field="tier",
            remedy="Use TIER_RESERVED, TIER_ON_DEMAND or TIER_SPOT.",
        )
    return found.value


def tier_value(name: str) -> job_pb2.Tier.ValueType:
    return job_pb2.Tier.Value(f"TIER_{name}")


def resource(value: str, collection: str, field: str) -> str:
    """``value``, if it is a name of that collection.

    Raises:
        Invalid: BAD_NAME.
    """
    if not value.startswith(f"{collection}/") or not value.isprintable():
        raise Invalid(
            f"{value[:100]!r} is not a name like {collection}/x.",
            reason="BAD_NAME",
            field=field,
            remedy=f"Write it as {collection}/ and the id.",
        )
    return value


def moment(ms: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(ms)
    return stamp


def ask(order: lease_pb2.LeaseOrder) -> Ask:
    resource(order.tenant, "tenants", "orders.tenant")
    resource(order.project, "projects", "orders.project")
    resource(order.job, "projects", "orders.job")
    for field in (order.lease, order.gang, order.node, order.chip):
        plain(field)
    if order.notice_ms > LONGEST_NOTICE_MS:
        raise Invalid(
            f"A notice of {order.notice_ms} ms is too long.",
            reason="NOTICE_TOO_LONG",
            field="orders.notice_ms",
            remedy=f"Ask for at most {LONGEST_NOTICE_MS} ms.",
        )
    return Ask(
        lease_id=order.lease,
        job=order.job,
        gang=order.gang,
        tenant=order.tenant,
        project=order.project,
        node=order.node.removeprefix(_NODE),
        chip=order.chip,
        quantity_milli=order.quantity_milli,
        tier=tier(order.tier),
        priority=order.priority,
        budget_nano=order.budget_nano or None,
        max_rate_nano_per_hour=order.max_price_nano_per_hour or None,
        attempt=order.attempt,
        notice_ms=order.notice_ms,
        site=plain(order.site),
        node_key=plain(order.node_key),
        power=_power(order),
    )


def _power(order: lease_pb2.LeaseOrder | lease_pb2.ChipUse) -> SitePower | None:
    """A site's power, where it is told."""
    if not order.HasField("power"):
        return None
    told = order.power
    return SitePower(told.pue_milli, tuple(told.carbon_mg_per_kwh), tuple(told.price_nano_per_kwh))


def plain(value: str) -> str:
    """``value``, if the books can hold it.

    Raises:
        Invalid: BAD_CHARACTER.
    """
    if value and not value.isprintable():
        raise Invalid(
            f"{value[:100]!r} holds a character that is not printable.",
            reason="BAD_CHARACTER",
            remedy="Use printable characters only.",
        )
    return value


def report(spool_id: str, message: lease_pb2.LeaseReport) -> Report:
    counters: dict[tuple[int, str], int] = {}
    for counter in message.counters:
        key = (counter.segment, plain(counter.meter))
        counters[key] = max(counter.cumulative, counters.get(key, 0))
    phase = min(message.phase or lease_pb2.SETTLE_PHASE_KNOWN, max(Phase))  # a newer agent's too
    text = ""
    if message.signature:
        told = [(segment, meter, count) for (segment, meter), count in counters.items()]
        text = meter_report.text(message.lease, spool_id, message.phase, message.final, told)
    return Report(
        plain(message.lease),
        plain(spool_id),
        Phase(phase),
        message.final,
        counters,
        text,
        message.signature,
    )


def grant(answer: Answer) -> lease_pb2.LeaseGrant:
    return lease_pb2.LeaseGrant(
        lease=answer.lease_id,
        valid_for_ms=answer.valid_for_ms,
        last=answer.last,
        reason=answer.reason,
        segment=answer.segment,
        rate_nano_per_hour=answer.rate_nano_per_hour,
        final_acknowledged=answer.final_acknowledged,
    )


def price(value: Price) -> money_pb2.Price:
    made = money_pb2.Price(
        version=value.version,
        chip=value.chip,
        tier=tier_value(value.tier),
        price_nano_per_hour=value.price_nano_per_hour,
        currency=value.currency,
        effective_time=moment(value.effective_ms),
        create_time=moment(value.recorded_ms),
        site=value.site,
        withdrawn=value.withdrawn,
        correction=value.correction,
    )
    _ends(made, value.span)
    return made


def priorities(value: PriorityTable) -> money_pb2.PriorityMultipliers:
    made = money_pb2.PriorityMultipliers(
        version=value.version,
        bands=[money_pb2.PriorityBand(above=it.above, permille=it.permille) for it in value.bands],
        effective_time=moment(value.effective_ms),
        create_time=moment(value.recorded_ms),
        correction=value.correction,
    )
    _ends(made, value.span)
    return made


def _ends(made: money_pb2.Price | money_pb2.PriorityMultipliers, span: Span | None) -> None:
    if span is not None and span.valid_to_ms is not None:
        made.end_time.CopyFrom(moment(span.valid_to_ms))
    if span is not None and span.recorded_to_ms is not None:
        made.record_end_time.CopyFrom(moment(span.recorded_to_ms))


def look(
    request: account_pb2.ListPricesRequest | account_pb2.ListPriorityMultipliersRequest,
) -> Look:
    """At which times of the book; unset = now."""
    return Look(
        request.as_of.ToMilliseconds() if request.HasField("as_of") else None,
        request.recorded_as_of.ToMilliseconds() if request.HasField("recorded_as_of") else None,
    )


def since(
    request: account_pb2.CreatePriceRequest | account_pb2.CreatePriorityMultipliersRequest,
) -> int | None:
    """From when on; unset = now."""
    named = request.HasField("effective_time")
    return request.effective_time.ToMilliseconds() if named else None


def use(told: lease_pb2.ChipUse) -> ChipUse:
    return ChipUse(
        plain(told.chip),
        told.total_milli,
        told.used_milli,
        told.waiting_milli,
        plain(told.site),
        told.watts,
        _power(told),
    )


def balance(tenant: str, wallet: Wallet) -> money_pb2.Balance:
    return money_pb2.Balance(
        tenant=tenant,
        currency=CURRENCY,
        posted_nano=wallet.posted_nano,
        held_nano=wallet.held_nano,
        available_nano=wallet.available_nano,
    )


def quoted(question: Question, value: Quoted) -> money_pb2.Quote:
    return money_pb2.Quote(
        chip=question.chip,
        tier=tier_value(question.tier),
        quantity_milli=question.quantity_milli,
        rate_nano_per_hour=value.rate_nano_per_hour,
        amount_nano=value.amount_nano,
        duration_ms=question.duration_ms,
        hold_nano=value.hold_nano,
        currency=value.price.currency,
        price_version=value.price.version,
        surcharge_nano_per_hour=value.rate.surcharge_nano_per_hour,
        priority_version=value.rate.priority_version,
        surcharge_nano=value.surcharge_nano,
        site=question.site,
    )


def line(value: Line, state: str, invoice_name: str) -> money_pb2.UsageLine:
    return money_pb2.UsageLine(
        lease=value.lease,
        job=value.job,
        segment=value.segment,
        meter=value.meter,
        chip=value.chip,
        tier=tier_value(value.tier),
        quantity_milli=value.quantity_milli,
        rate_nano_per_hour=value.rate_nano_per_hour,
        counter_ns=value.counter_ns,
        granted_ns=value.granted_ns,
        charged_ns=value.charged_ns,
        amount_nano=value.amount_nano,
        currency=value.currency,
        price_version=value.price_version,
        lease_state=state,
        open_time=moment(value.opened_ms),
        node=f"{_NODE}{value.node}",
        invoice=invoice_name,
    )


def scope(tenant: str, project: str, job: str) -> Scope:
    """Whose leases: a tenant's, of one project or job where named."""
    return Scope(
        resource(tenant, "tenants", "tenant"),
        resource(project, "projects", "project") if project else "",
        resource(job, "projects", "job") if job else "",
    )


def page_token(key: tuple[int, str] | None) -> str:
    """Where a page ended, for the next; "" = that was the last."""
    if key is None:
        return ""
    return base64.urlsafe_b64encode(f"{key[0]}/{key[1]}".encode()).decode()


def page_key(token: str) -> tuple[int, str] | None:
    """What ``page_token`` wrote.

    Raises:
        Invalid: BAD_PAGE_TOKEN.
    """
    if not token:
        return None
    try:
        ms, _, lease = base64.b64decode(token, b"-_", validate=True).decode().partition("/")
        key = (int(ms), plain(lease))
        if abs(key[0]) > _MOST:
            raise ValueError(ms)
    except (binascii.Error, ValueError, Invalid) as error:
        raise Invalid(
            "This page token is none of ours.",
            reason="BAD_PAGE_TOKEN",
            field="page_token",
            remedy="Pass on next_page_token as it came, or leave it empty.",
        ) from error
    return key
