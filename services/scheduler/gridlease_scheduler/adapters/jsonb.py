"""Domain values as jsonb columns, both ways."""

from __future__ import annotations

import dataclasses
from typing import Any

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Needs, Purpose, Reason, Tier


def dump(value: Needs | Reason) -> dict[str, Any]:
    """A value as its column holds it."""
    return dataclasses.asdict(value)


def reason(column: dict[str, Any]) -> Reason:
    """A reason; empty columns are empty reasons."""
    return Reason(**column)


def needs(column: dict[str, Any]) -> Needs:
    """What a task needs."""
    accelerator = column["accelerator"]
    return Needs(
        **{
            **column,
            "purpose": Purpose(column["purpose"]),
            "tier": Tier(column["tier"]),
            "accelerator": accelerator
            and AcceleratorNeed(**{**accelerator, "chips": tuple(accelerator["chips"])}),
        }
    )
