"""Places for all members of a gang at once, or for none.

Members are alike, so a group of nodes holds a gang if it has room for as many members; which node
takes how many of them cannot go wrong, and the choice is free for what is good: few nodes, one
rack, and the group with the least room that still holds all. One member is a gang of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from gridlease_scheduler.domain.job import Span

from .index import Host, Index
from .shelf import RACK, RAIL, SITE, Shelf

_LEVELS = {Span.RACK: RACK, Span.RAIL: RAIL, Span.SITE: SITE}
_Shares = list[tuple[Host, int]]  # how many members go to which host


Seat = tuple[Host, tuple[str, ...]]  # one member's place: the host, and its devices by name


def seat(index: Index, way: Shelf, members: int, span: Span, image: str = "") -> list[Seat] | None:
    """Take places for all members, or leave everything as it is and answer None.

    ``image``: of nodes that are alike, one that has it at hand.
    """
    take, shape = index.take, way.shape
    if members == 1:
        state = way.best()
        if state is None:
            return None
        host = index.near(state, image)
        return [(host, take(host, way.at(state), shape))]
    shares = _shares(index, way, members, span)
    if shares is None:
        return None
    return [
        (host, take(host, way.at(host.state), shape))
        for host, count in shares
        for _ in range(count)
    ]


def room(way: Shelf, span: Span) -> int:
    """How many members of a shape could be placed now, as near to each other as is asked."""
    if span is Span.HOST:
        return max((way.fit(x) for x in way.index.living()), default=0)
    if span is Span.ANY:
        return way.table(SITE).total
    table = way.table(_LEVELS[span])
    group = table.widest()
    return 0 if group is None else table.room[group]


def _shares(index: Index, way: Shelf, members: int, span: Span) -> _Shares | None:
    match span:
        case Span.HOST:
            return _one_host(index, way, members)
        case Span.RACK | Span.RAIL:
            return _one_host(index, way, members) or _one_group(index, way, _LEVELS[span], members)
        case Span.SITE | Span.ANY:
            return (
                _one_host(index, way, members)
                or _one_group(index, way, RACK, members)
                or (index.railed and _one_group(index, way, RAIL, members))
                or _several_racks(index, way, members, span)
            )


def _one_host(index: Index, way: Shelf, members: int) -> _Shares | None:
    if way.shape.devices * members > way.largest > 0:
        return None
    state = way.several(members).best()
    return None if state is None else [(index.first(state), members)]


def _one_group(index: Index, way: Shelf, level: int, members: int) -> _Shares | None:
    group = way.table(level).tightest(members)
    return None if group is None else _fill(way, index.members[level][group], members)


def _several_racks(index: Index, way: Shelf, members: int, span: Span) -> _Shares | None:
    """Over as few racks as can be, of one site if one can hold them all."""
    sites = way.table(SITE)
    site = sites.tightest(members)
    if site is None and (span is Span.SITE or sites.total < members):
        return None
    racks = way.table(RACK)
    wide = sorted(
        (-each, group)
        for group, each in enumerate(racks.room)
        if each and (site is None or index.members[RACK][group][0].groups[SITE] == site)
    )
    shares: _Shares = []
    left = members
    for at, (negative, widest) in enumerate(wide):
        group = widest
        if -negative >= left:  # the last: the tightest that holds the rest
            group = min((-each, other) for each, other in wide[at:] if -each >= left)[1]
        part = min(left, racks.room[group])
        shares += _fill(way, index.members[RACK][group], part)
        left -= part
        if not left:
            break
    assert not left, (members, left)
    return shares


def _fill(way: Shelf, hosts: Sequence[Host], members: int) -> _Shares:
    """Over as few of these hosts as can be; they have room for all."""
    found = _rooms(way, hosts)
    found.sort()
    shares: _Shares = []
    left = members
    for at, (negative, _, _, host) in enumerate(found):
        if -negative == left:
            shares.append((host, left))
            return shares
        if -negative > left:  # the last: the tightest that holds the rest
            tight = min(x for x in ((-y[0], *y[1:]) for y in found[at:]) if x[0] >= left)
            shares.append((tight[3], left))
            return shares
        shares.append((host, -negative))
        left += negative
    raise AssertionError((members, left))


def _rooms(way: Shelf, hosts: Sequence[Host]) -> list[tuple[int, float, int, Host]]:
    """Hosts with room: much of it first, then the cheapest, then in the fixed order."""
    try:
        return _looked_up(way, hosts)
    except KeyError:
        way.learn(hosts)
        return _looked_up(way, hosts)


def _looked_up(way: Shelf, hosts: Sequence[Host]) -> list[tuple[int, float, int, Host]]:
    fits, prices = way.fits, way.prices
    return [
        (-many, prices[state], host.number, host)
        for host in hosts
        if (many := fits[state := host.state])
    ]
