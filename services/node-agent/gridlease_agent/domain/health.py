"""Is a device well? Judged from what it says of itself, against what it said before.

Three answers: well; *suspect*, where readings contradict each other (a value is then marked, never
taken for 0); *faulty*, where it must take no new work. Faulty stays until an operator or a
certification says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

# Source: NVIDIA, "XID Errors" (GPU deployment documentation): those that speak of the device.
# 13, 31, 43, 45 and 68 are an application's and say nothing about it.
_XIDS = {
    48: "a double-bit memory error",
    62: "the microcontroller stopped",
    63: "a memory row is to be remapped",
    64: "a memory row could not be remapped",
    74: "an NVLink error",
    79: "the device fell off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "the device's system processor does not answer",
    120: "the device's system processor failed",
}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)")
_BUSY_MILLI, _IDLE_MILLI = 900, 10
_SPREAD_MW = 30_000  # by so much more than at rest a busy device draws, at least
_HOT_MILLI_C = 95_000  # drivers throttle data-centre devices at 83 to 93 °C
_HOT_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a device says of itself; None = it does not say."""

    utilisation_milli: int | None = None
    memory_used_bytes: int | None = None
    power_mw: int | None = None
    temperature_milli_c: int | None = None
    energy_mj: int | None = None
    ecc_uncorrected: int | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A device under watch. ``suspect``: quantities that are contradicted. ``fault``: a code, or
    empty; ``energy_mj``: the integral of its power, for one that has no counter."""

    vitals: Vitals = field(default_factory=Vitals)
    suspect: frozenset[str] = frozenset()
    fault: str = ""
    message: str = ""
    rest_mw: int | None = None  # the least power ever seen
    energy_mj: int | None = None
    ecc_first: int | None = None
    hot_since_ns: int | None = None
    seen_ns: int | None = None


def judged(before: Watched, vitals: Vitals, now_ns: int) -> Watched:
    """The device after one more reading.

    Args:
        now_ns: a monotonic clock's, ns.
    """
    rest_mw = _least(before.rest_mw, vitals.power_mw)
    after = replace(
        before,
        vitals=vitals,
        rest_mw=rest_mw,
        energy_mj=_energy(before, vitals, now_ns),
        suspect=_suspect(before.vitals, vitals, rest_mw),
        ecc_first=vitals.ecc_uncorrected if before.ecc_first is None else before.ecc_first,
        hot_since_ns=_hot_since(before, vitals, now_ns),
        seen_ns=now_ns,
    )
    if before.fault:
        return after
    if after.ecc_first is not None and (vitals.ecc_uncorrected or 0) > after.ecc_first:
        count = (vitals.ecc_uncorrected or 0) - after.ecc_first
        return replace(
            after, fault="ECC_UNCORRECTED", message=f"{count} uncorrected memory error(s)"
        )
    if after.hot_since_ns is not None and now_ns - after.hot_since_ns >= _HOT_NS:
        degrees = (vitals.temperature_milli_c or 0) // 1000
        return replace(after, fault="OVERHEATED", message=f"{degrees} °C for a minute")
    return after


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _suspect(before: Vitals, now: Vitals, rest_mw: int | None) -> frozenset[str]:
    """Quantities that another one contradicts, or that fell silent."""
    found: set[str] = set()
    if now.utilisation_milli is None and before.utilisation_milli is not None:
        found.add("utilisation")
    if now.power_mw is None and before.power_mw is not None:
        found.add("power")
    if now.power_mw is not None and rest_mw is not None and now.utilisation_milli is not None:
        draws = now.power_mw - rest_mw >= _SPREAD_MW
        if draws and now.utilisation_milli <= _IDLE_MILLI:
            found.add("utilisation")  # it works hard and says that it does nothing
        if now.power_mw == 0:
            found.add("power")
    return frozenset(found)


def _energy(before: Watched, now: Vitals, now_ns: int) -> int | None:
    """Power over time, for a device without a counter; the span between two readings counts."""
    if now.power_mw is None:
        return before.energy_mj
    if before.seen_ns is None:
        return 0
    spent_mj = now.power_mw * max(0, now_ns - before.seen_ns) // 1_000_000_000
    return (before.energy_mj or 0) + spent_mj


def _hot_since(before: Watched, now: Vitals, now_ns: int) -> int | None:
    if now.temperature_milli_c is None or now.temperature_milli_c < _HOT_MILLI_C:
        return None
    return now_ns if before.hot_since_ns is None else before.hot_since_ns


def kernel_fault(line: str) -> tuple[str, str, str] | None:
    """A line of the kernel's log that condemns a device: (bus, code, words), or None.

    >>> kernel_fault("NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.")
    ('0000:01:00', 'XID_79', 'the device fell off the bus')
    >>> kernel_fault("NVRM: Xid (PCI:0000:01:00): 31, pid=7, name=python, MMU Fault")
    """
    found = _XID.search(line)
    if found is None or int(found.group(2)) not in _XIDS:
        return None
    return found.group(1), f"XID_{found.group(2)}", _XIDS[int(found.group(2))]
