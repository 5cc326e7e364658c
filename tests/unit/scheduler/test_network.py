"""Guarantees are kept, critical traffic goes where there is room, and a refusal is exact."""

import itertools

from gridlease_scheduler.domain.links.network import (
    RDMA_KINDS,
    Ask,
    Latency,
    Link,
    LinkKind,
    Refused,
    Route,
    Trouble,
    admit,
    broken,
    free_mbit,
    oversubscribed,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

# node/a -- rack/1 == (fast, thin) and (slow, thick) == rack/2 -- node/b; a WAN to the far site.
LINKS = (
    Link("a-1", "node/a", "rack/1", 100_000, 10),
    Link("thin", "rack/1", "rack/2", 10_000, 100, LinkKind.ROCE),
    Link("thick", "rack/1", "rack/2", 40_000, 900),
    Link("b-2", "rack/2", "node/b", 100_000, 10),
    Link("wan", "rack/2", "site/far", 1_000, 20_000, LinkKind.WAN),
)


def ask(mbit=0, latency=Latency.STANDARD, **changes):
    return Ask("node/a", "node/b", mbit, latency, **changes)


def path(links, routes, wanted):
    answer = admit(links, routes, wanted)
    assert isinstance(answer, Route), answer
    return answer.link_ids


def refusal(links, routes, wanted):
    answer = admit(links, routes, wanted)
    assert isinstance(answer, Refused), answer
    assert answer.remedy
    return answer


def test_standard_traffic_takes_the_quickest_path_that_carries_it():
    assert path(LINKS, (), ask(1_000)) == ("a-1", "thin", "b-2")
    assert path(LINKS, (), ask(20_000)) == ("a-1", "thick", "b-2")
    assert admit(LINKS, (), ask(1_000)).path_us == 120


def test_critical_traffic_takes_the_path_with_the_most_room_within_its_bound():
    assert path(LINKS, (), ask(1_000, Latency.CRITICAL)) == ("a-1", "thick", "b-2")
    assert path(LINKS, (), ask(1_000, Latency.CRITICAL, latency_us=500)) == ("a-1", "thin", "b-2")


def test_the_bound_itself_is_within_the_bound():
    assert path(LINKS, (), ask(1, Latency.CRITICAL, latency_us=120)) == ("a-1", "thin", "b-2")
    assert refusal(LINKS, (), ask(1, latency_us=119)).code is Trouble.NETWORK_LATENCY


def test_of_many_widths_the_widest_is_found():
    for count in range(1, 9):
        links = tuple(Link(f"l{it}", "a", "b", 10 * it, it) for it in range(1, count + 1))
        assert path(links, (), Ask("a", "b", 1, Latency.CRITICAL)) == (f"l{count}",)
        bounded = Ask("a", "b", 1, Latency.CRITICAL, latency_us=(count + 1) // 2)
        assert path(links, (), bounded) == (f"l{(count + 1) // 2}",)


def test_bulk_traffic_leaves_the_fast_links_free():
    assert path(LINKS, (), ask(1_000, Latency.BULK)) == ("a-1", "thick", "b-2")
    assert path(LINKS, (), ask(1_000, Latency.BULK, latency_us=500)) == ("a-1", "thin", "b-2")


def test_critical_traffic_has_a_bound_of_5_ms_by_itself():
    far = Ask("node/a", "site/far", 1, Latency.CRITICAL)
    refused = refusal(LINKS, (), far)
    assert refused.code is Trouble.NETWORK_LATENCY
    assert refused.evidence["quickest_us"] == "20110"
    assert "5000 us" in refused.message
    assert path(LINKS, (), Ask("node/a", "site/far", 1)) == ("a-1", "thin", "wan")


def test_rdma_goes_over_links_that_have_it():
    lan = (*LINKS, Link("a-1r", "node/a", "rack/1", 9, 1, LinkKind.RDMA))
    lan += (Link("b-2r", "node/b", "rack/2", 9, 1, LinkKind.RDMA),)
    assert path(lan, (), ask(5, kinds=RDMA_KINDS)) == ("a-1r", "thin", "b-2r")
    refused = refusal(LINKS, (), ask(5, kinds=RDMA_KINDS))
    assert refused.code is Trouble.NETWORK_UNREACHABLE
    assert "rdma or roce" in refused.message


def test_what_is_promised_is_no_longer_free_until_it_is_released():
    first = admit(LINKS, (), ask(8_000))
    assert first.link_ids[1] == "thin"
    assert free_mbit(LINKS, [first])["thin"] == 2_000
    assert path(LINKS, [first], ask(8_000))[1] == "thick"
    assert path(LINKS, (), ask(8_000))[1] == "thin"


def test_a_refusal_says_what_is_left():
    refused = refusal(LINKS, [admit(LINKS, (), ask(35_000))], ask(11_000))
    assert refused.code is Trouble.NETWORK_GUARANTEE
    assert refused.evidence["most_free_mbit"] == "10000"
    assert "10000" in refused.remedy


def test_a_link_that_is_down_carries_nothing():
    down = tuple(
        Link(it.link_id, it.a, it.b, it.capacity_mbit, it.latency_us, it.kind, it.link_id != "b-2")
        for it in LINKS
    )
    assert refusal(down, (), ask()).code is Trouble.NETWORK_UNREACHABLE
    held = {"lease-1": admit(LINKS, (), ask()), "lease-2": Route((), Latency.BULK, 0, 0)}
    assert broken(down, held) == ("lease-1",)
    assert broken(LINKS, held) == ()


def test_one_place_needs_no_link():
    assert admit((), (), Ask("n", "n", 10**9)) == Route((), Latency.STANDARD, 10**9, 0)


def test_an_unknown_place_is_unreachable():
    assert refusal(LINKS, (), Ask("node/a", "node/x")).code is Trouble.NETWORK_UNREACHABLE


def test_a_link_that_shrinks_is_told():
    route = admit(LINKS, (), ask(9_000))
    smaller = (*LINKS[:1], Link("thin", "rack/1", "rack/2", 5_000, 100), *LINKS[2:])
    assert oversubscribed(smaller, [route]) == ("thin",)
    assert oversubscribed(LINKS[2:], [route]) == ()


# -- against brute force ---------------------------------------------------------------------------

PLACES = [f"p{index}" for index in range(5)]


@st.composite
def networks(draw):
    pairs = draw(st.lists(st.sampled_from(list(itertools.combinations(PLACES, 2))), max_size=9))
    return tuple(
        Link(
            f"l{index}",
            *pair,
            draw(st.integers(0, 6)),
            draw(st.integers(0, 4_000)),
            draw(st.sampled_from(LinkKind)),
            draw(st.integers(0, 9)) > 0,
        )
        for index, pair in enumerate(pairs)
    )


ASKS = st.builds(
    Ask,
    st.sampled_from(PLACES),
    st.sampled_from(PLACES),
    st.integers(0, 6),
    st.sampled_from(Latency),
    st.sampled_from([0, 0, 1, 2_000, 9_000]),
    st.sampled_from([frozenset(), RDMA_KINDS, frozenset({LinkKind.ETHERNET, LinkKind.WAN})]),
)


def every_path(links, wanted, place=None, taken=(), seen=()):
    """All simple paths, by exhaustion."""
    place = wanted.source if place is None else place
    if place == wanted.target:
        yield taken
        return
    for link in links:
        for here, there in ((link.a, link.b), (link.b, link.a)):
            if here == place and there not in (*seen, place):
                yield from every_path(links, wanted, there, (*taken, link), (*seen, place))


def feasible(links, routes, wanted):
    free = free_mbit(links, routes)
    usable = [it for it in links if it.up and (not wanted.kinds or it.kind in wanted.kinds)]
    for found in every_path(usable, wanted):
        quick = wanted.bound_us is None or sum(it.latency_us for it in found) <= wanted.bound_us
        if quick and all(free[it.link_id] >= wanted.mbit for it in found):
            yield found


@settings(max_examples=300)
@given(networks(), st.lists(ASKS, max_size=8), ASKS)
def test_the_answer_is_that_of_brute_force(links, earlier, wanted):
    routes = []
    for each in earlier:
        answer = admit(links, routes, each)
        if isinstance(answer, Route):
            routes.append(answer)
    free = free_mbit(links, routes)
    all_paths = list(feasible(links, routes, wanted))
    answer = admit(links, routes, wanted)
    assert answer == admit(tuple(reversed(links)), list(reversed(routes)), wanted)
    if isinstance(answer, Refused):
        assert not all_paths
        return
    mine = tuple(next(it for it in links if it.link_id == one) for one in answer.link_ids)
    assert mine in all_paths
    assert answer.path_us == sum(it.latency_us for it in mine)
    if not mine:
        return
    match wanted.latency:
        case Latency.CRITICAL:
            widths = [min(free[it.link_id] for it in found) for found in all_paths]
            assert min(free[it.link_id] for it in mine) == max(widths)
        case Latency.STANDARD:
            assert answer.path_us == min(sum(it.latency_us for it in x) for x in all_paths)


@settings(max_examples=100)
@given(networks(), ASKS)
def test_the_reason_of_a_refusal_is_the_true_one(links, wanted):
    answer = admit(links, (), wanted)
    if not isinstance(answer, Refused):
        return
    anyhow = Ask(wanted.source, wanted.target, kinds=wanted.kinds)
    unbounded = Ask(wanted.source, wanted.target, wanted.mbit, kinds=wanted.kinds)
    reachable, wide = any(feasible(links, (), anyhow)), any(feasible(links, (), unbounded))
    match answer.code:
        case Trouble.NETWORK_UNREACHABLE:
            assert not reachable
        case Trouble.NETWORK_GUARANTEE:
            assert reachable
            assert not wide
        case Trouble.NETWORK_LATENCY:
            assert wide


class Promises(RuleBasedStateMachine):
    """Any sequence of requests and ends: no link ever promises more than it has."""

    def __init__(self):
        super().__init__()
        self.links = ()
        self.routes = {}

    @precondition(lambda self: not self.links)
    @rule(links=networks())
    def build(self, links):
        self.links = links

    @rule(wanted=ASKS, number=st.integers(0, 30))
    def submit(self, wanted, number):
        answer = admit(self.links, self.routes.values(), wanted)
        if isinstance(answer, Route):
            self.routes.setdefault(number, answer)

    @rule(number=st.integers(0, 30))
    def end(self, number):
        self.routes.pop(number, None)

    @invariant()
    def guarantees_are_kept(self):
        assert oversubscribed(self.links, self.routes.values()) == ()
        for link in self.links:
            promised = sum(
                it.mbit for it in self.routes.values() for one in it.link_ids if one == link.link_id
            )
            assert promised <= link.capacity_mbit


Promises.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestPromises = Promises.TestCase


def test_a_leaf_and_spine_fabric_is_filled_and_not_beyond():
    links = tuple(
        Link(f"{leaf}-{spine}", f"rack/{leaf}", f"spine/{spine}", 100, 5)
        for leaf in range(8)
        for spine in range(4)
    )
    routes = []
    for _ in range(1_000):
        answer = admit(links, routes, Ask("rack/0", "rack/1", 30, Latency.CRITICAL))
        if isinstance(answer, Refused):
            break
        routes.append(answer)
    assert len(routes) == 12  # three of 30 on each of four spines
    assert oversubscribed(links, routes) == ()
