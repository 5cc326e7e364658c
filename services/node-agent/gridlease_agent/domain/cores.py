"""Which cores each lease may run on: whole ones for who may have no neighbour, the rest for all.

A core is all of its threads (SMT siblings). A lease that shares with nobody gets whole cores, as
many as its quota needs, and no thread of them is anybody else's. All other leases share what is
left, so their set shrinks and grows with those; it is never empty while anybody is in it.

    take(layout, holders, lease, cpu_milli, alone) -> Holders | None     None = no cores for it now
    cpus(layout, holders, lease) -> the threads that it may run on
    listed((0, 1, 4)) -> "0-1,4"; numbers("0-1,4") -> (0, 1, 4)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Core = tuple[int, ...]  # its threads' numbers, in order


@dataclass(frozen=True, slots=True)
class Held:
    """One lease's part. ``cores``: its own, empty = it shares what nobody has for himself."""

    cpu_milli: int
    cores: tuple[Core, ...] = ()


Holders = Mapping[str, Held]


def take(
    layout: Sequence[Core], holders: Holders, lease_id: str, cpu_milli: int, *, alone: bool
) -> Holders | None:
    """The holders with this lease among them, or None where there is no room for it.

    Of the free cores the highest-numbered are taken: the host's own work gathers on the first.
    """
    others = {key: held for key, held in holders.items() if key != lease_id}
    free = _free(layout, others)
    if not alone:
        return {**others, lease_id: Held(cpu_milli)} if free else None
    shared = any(not held.cores for held in others.values())
    mine: list[Core] = []
    while free and sum(map(len, mine)) * 1_000 < max(1, cpu_milli):
        mine.append(free.pop())
    if sum(map(len, mine)) * 1_000 < cpu_milli or (shared and not free):
        return None
    return {**others, lease_id: Held(cpu_milli, tuple(sorted(mine)))}


def given(holders: Holders, lease_id: str) -> Holders:
    """The holders without it."""
    return {key: held for key, held in holders.items() if key != lease_id}


def cpus(layout: Sequence[Core], holders: Holders, lease_id: str) -> tuple[int, ...]:
    """The threads that a lease may run on now."""
    cores = holders[lease_id].cores or tuple(_free(layout, holders))
    return tuple(sorted(thread for core in cores for thread in core))


def _free(layout: Sequence[Core], holders: Holders) -> list[Core]:
    taken = {core for held in holders.values() for core in held.cores}
    return [core for core in layout if core not in taken]


def listed(numbers_of: Iterable[int]) -> str:
    """As the kernel writes a set of CPUs.

    >>> listed((4, 0, 1))
    '0-1,4'
    """
    spans: list[list[int]] = []
    for number in sorted(set(numbers_of)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in spans)


def numbers(text: str) -> tuple[int, ...]:
    """What ``listed`` has written.

    >>> numbers("0-1,4")
    (0, 1, 4)
    """
    spans = [span.split("-") for span in text.strip().split(",") if span]
    return tuple(
        number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)
    )  # fmt: skip
