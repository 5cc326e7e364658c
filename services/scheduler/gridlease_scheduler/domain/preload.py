"""What a node should have at hand before anybody asks: popular images, and sandboxes made ahead.

    usages(recent) -> the uses of the last jobs, the most frequent first
    preload(uses, chips) -> what a node with these chips should have, the most wanted first

A wish decides nothing: a node follows it in its idle time, as far as it has room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

RECENT_JOBS = 2_000
_WISHES = 16  # to one node
_WARM_WISHES = 4
_LEAST_JOBS = 2  # once is no habit
_SHORT_MS = 60_000  # a start of some 50 ms matters to those
_OFTEN = 5
_MOST_WARM = 4


@dataclass(frozen=True, slots=True)
class Use:
    """What a job ran on. ``chip``: of its accelerator; empty = CPUs alone.

    ``ahead``: a sandbox made ahead would do: no device, no network, no secrets' worth of state.
    ``modules``: that its tenant asks to have imported in frozen ones.
    """

    tenant: str
    image: str
    runtime: str
    chip: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    ahead: bool = False
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recent:
    """One job of late. ``ran_ms``: None where it still runs; ``service``: it follows its load."""

    use: Use
    service: bool = False
    ran_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """How often something was used, how often for a short time, and whether by a service."""

    use: Use
    jobs: int
    short: int
    service: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """Files where ``tenant`` is empty, else sandboxes as well."""

    image: str
    runtime: str
    tenant: str = ""
    created: int = 0
    frozen: int = 0
    modules: tuple[str, ...] = ()
    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


def usages(recent: Iterable[Recent]) -> tuple[Usage, ...]:
    """The same uses counted together."""
    jobs: Counter[Use] = Counter()
    short: Counter[Use] = Counter()
    services = set()
    for one in recent:
        jobs[one.use] += 1
        short[one.use] += one.ran_ms is not None and one.ran_ms <= _SHORT_MS
        if one.service:
            services.add(one.use)
    found = [Usage(use, count, short[use], use in services) for use, count in jobs.items()]
    return tuple(sorted(found, key=lambda x: (-x.jobs, x.use.tenant, x.use.image, x.use.runtime)))


def preload(uses: Sequence[Usage], chips: Collection[str]) -> tuple[Wish, ...]:
    """Sandboxes for services and for frequent short jobs first, then the files of the others."""
    mine = [x for x in uses if not x.use.chip or x.use.chip in chips]
    warm = [wish for x in mine if (wish := _warm(x)) is not None][:_WARM_WISHES]
    popular: Counter[tuple[str, str]] = Counter()
    for one in mine:
        if one.use.image or one.use.runtime:
            popular[one.use.image, one.use.runtime] += one.jobs + _LEAST_JOBS * one.service
    named = {(x.image, x.runtime) for x in warm}
    files = [
        Wish(*what)
        for what, count in sorted(popular.items(), key=lambda x: (-x[1], x[0]))
        if count >= _LEAST_JOBS and what not in named
    ]
    return (*warm, *files)[:_WISHES]


def _warm(usage: Usage) -> Wish | None:
    use = usage.use
    if not use.ahead or not (usage.service or usage.short >= _OFTEN):
        return None
    count = min(_MOST_WARM, 1 + usage.short // (4 * _OFTEN))
    frozen = count if use.modules else 0
    return Wish(
        use.image,
        use.runtime,
        use.tenant,
        0 if frozen else count,
        frozen,
        use.modules,
        use.cpu_milli,
        use.memory_bytes,
        use.disk_bytes,
    )
