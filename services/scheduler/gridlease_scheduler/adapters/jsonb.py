"""Domain values as jsonb columns, both ways."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import (
    Needs,
    NetworkClass,
    NetworkNeed,
    Purpose,
    Reason,
    Software,
    Span,
    Tenancy,
    Tier,
)


def dump(value: Needs | Reason) -> dict[str, Any]:
    """A value as its column holds it."""
    return dataclasses.asdict(value)


@functools.lru_cache(maxsize=4_096)
def text(value: Needs) -> str:
    """What a job needs, as its column's text; made once for equal needs."""
    return json.dumps(dump(value))


def reason_text(value: Reason) -> str:
    """A reason, as its column's text."""
    return json.dumps(
        {
            "code": value.code,
            "message": value.message,
            "hint": value.hint,
            "evidence": value.evidence,
        }
    )


def reason(column: dict[str, Any]) -> Reason:
    """A reason; empty columns are empty reasons."""
    return Reason(**column)


def needs(column: dict[str, Any]) -> Needs:
    """What a task needs. A row of an older release lacks what came later: defaults stand in."""
    given: dict[str, Any] = {
        **column,
        "purpose": Purpose(column["purpose"]),
        "tier": Tier(column["tier"]),
        "accelerator": _accelerator(column["accelerator"]),
    }
    if "alternatives" in column:
        given |= {
            "alternatives": tuple(AcceleratorNeed(**_chips(x)) for x in column["alternatives"]),
            "span": Span(column["span"]),
            "software": Software(
                **{**column["software"], "targets": tuple(column["software"]["targets"])}
            ),
            "network": NetworkNeed(
                **{
                    **column["network"],
                    "network_class": NetworkClass(column["network"]["network_class"]),
                }
            ),
        }
    if "tenancy" in column:
        given["tenancy"] = Tenancy(column["tenancy"])
    return Needs(**given)


def _accelerator(column: dict[str, Any] | None) -> AcceleratorNeed | None:
    return AcceleratorNeed(**_chips(column)) if column else None


def _chips(column: dict[str, Any]) -> dict[str, Any]:
    return {**column, "chips": tuple(column["chips"])}
