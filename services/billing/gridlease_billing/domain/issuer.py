"""Records around an invoice: who issues it, to whom, what its lines ask for and rest on."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_billing.domain.tax import TaxRate

DEFAULT_ENTITY = "default"


@dataclass(frozen=True, slots=True)
class LegalEntity:
    """An issuer, as one version of it. ``prefix``: what its numbers begin with."""

    entity: str
    name: str
    address: str
    country: str
    tax_id: str
    prefix: str
    recorded_ms: int = 0


@dataclass(frozen=True, slots=True)
class TaxProfile:
    """A tenant as its tax office knows it, as one version. ``entity``: who bills it."""

    tenant: str
    name: str = ""
    address: str = ""
    country: str = ""
    tax_id: str = ""
    language: str = "en"
    entity: str = DEFAULT_ENTITY
    recorded_ms: int = 0


@dataclass(frozen=True, slots=True)
class TaxSource:
    """A rate, and where it stands."""

    rate: TaxRate
    source: str


@dataclass(frozen=True, slots=True)
class LineSplit:
    """What a final line asks for, and what of it credit notes have given back."""

    net_nano: int
    tax_nano: int
    net_credited_nano: int = 0
    tax_credited_nano: int = 0

    @property
    def left_nano(self) -> int:
        """What a note may still give back, tax included."""
        return max(0, self.net_nano - self.net_credited_nano) + max(
            0, self.tax_nano - self.tax_credited_nano
        )


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A node's last word on a segment, as it signed it."""

    lease: str
    segment: int
    node: str
    node_key: str
    report: str
    signature: bytes
    recorded_ms: int
    part: str = ""  # which of the segment's reports: docs/metering.md


@dataclass(frozen=True, slots=True)
class CoverDraw:
    """What a segment drew from a commitment in one hour, and got back for it; milli_ns:
    thousandths of device-nanoseconds."""

    commitment: str
    hour_ms: int
    lease: str
    segment: int
    rate_nano_per_hour: int
    quantity_milli: int
    before_milli_ns: int
    milli_ns: int
    cover_nano: int
