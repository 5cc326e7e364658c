"""Is a device well? Judged from what it says of itself, against what it said before.

Four answers: well; *suspect*, where readings contradict each other or fall silent (a value is then
marked, never taken for 0); *doubtful*, where that lasts: no new work until it has been well again
for a while; *faulty*, where it must take no new work. Faulty stays until an operator or a
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
_FLAT_MW = 5_000  # a device that works draws more than so little above its rest
_MOST_MW = 2_000_000  # no device of today draws so much
_HARD_MW = 150_000  # so far above its rest a device certainly works
_DOUBT_NS = 300_000_000_000  # so long wrong
_WELL_NS = 60_000_000_000  # so long not wrong any more
_DOUBTS = {
    "utilisation": "it does not say what it does, or says nothing beside much power",
    "power": "its power is not to be had, none, more than can be, or that of rest at full use",
}


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
    most_mw: int | None = None  # the most, of what can be
    told: frozenset[str] = frozenset()  # quantities that it has ever told
    since_ns: tuple[tuple[str, int], ...] = ()  # wrong without a break since then
    well_since_ns: int | None = None
    doubt: str = ""  # why it takes no new work for now, in words
    energy_mj: int | None = None
    ecc_first: int | None = None
    hot_since_ns: int | None = None
    seen_ns: int | None = None


def judged(before: Watched, vitals: Vitals, now_ns: int) -> Watched:
    """The device after one more reading.

    Args:
        now_ns: a monotonic clock's, ns.
    """
    rest_mw = _least(before.rest_mw, vitals.power_mw or None)  # 0 is no reading
    most_mw = _most(before.most_mw, vitals.power_mw)
    told = before.told | _told(vitals)
    wrong = _wrong(told, vitals, rest_mw, most_mw)
    after = replace(
        _doubted(before, wrong, now_ns),
        vitals=vitals,
        rest_mw=rest_mw,
        most_mw=most_mw,
        told=told,
        energy_mj=_energy(before, vitals, now_ns),
        suspect=wrong | _suspect(vitals, rest_mw),
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


def _most(one: int | None, other: int | None) -> int | None:
    if other is None or other > _MOST_MW:
        return one
    return other if one is None else max(one, other)


def _told(now: Vitals) -> frozenset[str]:
    values = {"utilisation": now.utilisation_milli, "power": now.power_mw}
    return frozenset(name for name, value in values.items() if value is not None)


def _doubted(before: Watched, wrong: frozenset[str], now_ns: int) -> Watched:
    """With how long each quantity has been wrong, and the doubt that comes of it or goes."""
    began = dict(before.since_ns)
    since = {name: began.get(name, now_ns) for name in wrong}
    well_ns = None
    if not wrong:
        well_ns = now_ns if before.well_since_ns is None else before.well_since_ns
    doubt = before.doubt
    lasting = sorted(name for name, at_ns in since.items() if now_ns - at_ns >= _DOUBT_NS)
    if lasting:
        doubt = _DOUBTS[lasting[0]]
    elif well_ns is not None and now_ns - well_ns >= _WELL_NS:
        doubt = ""
    return replace(
        before, since_ns=tuple(sorted(since.items())), well_since_ns=well_ns, doubt=doubt
    )


def _suspect(now: Vitals, rest_mw: int | None) -> frozenset[str]:
    """Quantities that another one may contradict: marked, and no more."""
    if now.power_mw is None or rest_mw is None or now.utilisation_milli is None:
        return frozenset()
    # A context that is open and does nothing may draw as much: it is no proof.
    draws = now.power_mw - rest_mw >= _SPREAD_MW
    return frozenset({"utilisation"} if draws and now.utilisation_milli <= _IDLE_MILLI else ())


def _wrong(
    told: frozenset[str], now: Vitals, rest_mw: int | None, most_mw: int | None
) -> frozenset[str]:
    """Quantities that fell silent, or that cannot be what is said."""
    found = set(told - _told(now))
    power, use = now.power_mw, now.utilisation_milli
    if power is not None and (power == 0 or power > _MOST_MW):
        found.add("power")
    elif None not in (power, use, rest_mw, most_mw):
        assert power is not None and use is not None and rest_mw is not None  # noqa: PT018
        assert most_mw is not None
        above, span = power - rest_mw, most_mw - rest_mw
        if span >= _SPREAD_MW and use >= _BUSY_MILLI and above < _FLAT_MW:
            found.add("power")  # at full use, and draws what it draws at rest
        if use <= _IDLE_MILLI and above >= max(_HARD_MW, span // 2):
            found.add("utilisation")  # it works hard and says that it does nothing
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
