"""Own or rent: what an hour of a device costs its owner, and the use at which the answer flips.

An owned device costs the same whether it works or not, so an hour of work costs the more the less
it is used; a rented one costs nothing while nobody rents it. Between them lies one figure: the
share of the hours that must be worked for owning to be as cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

HOURS_A_YEAR = 8_760
_PERMILLE = 1_000


@dataclass(frozen=True, slots=True)
class OwnedNode:
    """What a node of one's own costs. Money: nano-units; shares: per mille.

    ``residual_permille``: of the price, what it still fetches after ``years``. ``power_w``: drawn
    at the socket, at full load. ``pue_permille``: power of the site by that of its machines.
    ``hosting_nano_per_kw_month``: space and cooling by installed power. ``upkeep_permille``: staff,
    spares and network a year, of the price.
    """

    price_nano: int
    devices: int
    years: int
    residual_permille: int
    power_w: int
    energy_nano_per_kwh: int
    pue_permille: int
    hosting_nano_per_kw_month: int
    upkeep_permille: int

    def __post_init__(self) -> None:
        """A node has a price, devices and a life; nothing is negative."""
        assert min(self.price_nano, self.devices, self.years) > 0, self
        assert 0 <= self.residual_permille <= _PERMILLE, self
        assert self.pue_permille >= _PERMILLE, self
        rest = (self.power_w, self.energy_nano_per_kwh, self.hosting_nano_per_kw_month)
        assert min(*rest, self.upkeep_permille) >= 0, self


@dataclass(frozen=True, slots=True)
class YearOfOwning:
    """A year of the whole node, by what it goes to. Nano-units."""

    capital_nano: int
    energy_nano: int
    hosting_nano: int
    upkeep_nano: int

    @property
    def total_nano(self) -> int:
        return self.capital_nano + self.energy_nano + self.hosting_nano + self.upkeep_nano


@dataclass(frozen=True, slots=True)
class Comparison:
    """``flips_at_permille``: owning is cheaper above this share of the hours; above 1,000 never."""

    owned_nano_per_hour: int  # one device, worked round the clock
    rent_nano_per_hour: int
    flips_at_permille: int

    @property
    def ever(self) -> bool:
        """Whether any use makes owning cheaper."""
        return self.flips_at_permille <= _PERMILLE

    def owned_at(self, use_permille: int) -> int:
        """What a worked hour costs the owner at that share of the hours, rounded up."""
        assert 0 < use_permille <= _PERMILLE, use_permille
        return -(-self.owned_nano_per_hour * _PERMILLE // use_permille)

    def saved_permille(self, use_permille: int) -> int:
        """Of the owner's cost, what renting saves; negative where renting costs more."""
        owned = self.owned_at(use_permille)
        return (owned - self.rent_nano_per_hour) * _PERMILLE // owned


def year_of(node: OwnedNode) -> YearOfOwning:
    """What a year of the node costs. Source: straight-line depreciation; energy at full load."""
    written_off = node.price_nano * (_PERMILLE - node.residual_permille)
    watt_hours = node.power_w * HOURS_A_YEAR
    return YearOfOwning(
        capital_nano=written_off // (_PERMILLE * node.years),
        energy_nano=watt_hours * node.pue_permille * node.energy_nano_per_kwh // 1_000_000,
        hosting_nano=node.power_w * node.hosting_nano_per_kw_month * 12 // 1_000,
        upkeep_nano=node.price_nano * node.upkeep_permille // _PERMILLE,
    )


def compare(node: OwnedNode, rent_nano_per_hour: int) -> Comparison:
    """Owning one device of ``node`` beside renting one at that rate."""
    assert rent_nano_per_hour > 0, rent_nano_per_hour
    hours = node.devices * HOURS_A_YEAR
    owned = -(-year_of(node).total_nano // hours)
    return Comparison(owned, rent_nano_per_hour, -(-owned * _PERMILLE // rent_nano_per_hour))
