"""Packing: prices against brute force, kept scores against fresh ones, moves within the budget."""

from itertools import product
from math import inf

import pytest
from gridlease_scheduler.domain.placing.fragmentation import (
    WHOLE,
    Request,
    Room,
    Weights,
    after,
    choices,
    cost,
    given_back,
    outlook,
    unusable,
)
from gridlease_scheduler.domain.placing.moves import Mover
from gridlease_scheduler.domain.placing.packing import Fleet, in_order
from gridlease_scheduler.domain.placing.prices import CELLS, pressure, rest_values, share_prices
from hypothesis import given, settings
from hypothesis import strategies as st

MIX = {
    Request(4_000, 1, 1, 810): 5,
    Request(8_000, 1, 1, 1_000): 6,
    Request(8_000, 1, 8, 1_000): 1,
    Request(2_000, 1, 1, 190): 1,
    Request(16_000, 1): 2,
}

sizes = st.dictionaries(st.integers(1, CELLS), st.integers(1, 50), min_size=1, max_size=6)
requests = st.builds(
    Request,
    cpu_milli=st.sampled_from((1_000, 4_000, 9_000)),
    memory_mib=st.just(1_024),
    devices=st.just(1),
    device_milli=st.sampled_from((200, 470, 810, 1_000)),
) | st.sampled_from(
    (
        Request(4_000, 512, 2, WHOLE),
        Request(8_000, 512),
        Request(2_000, 512, 1, WHOLE, frozenset({"T4"})),
        Request(2_000, 512, 4, WHOLE, frozenset({"G2", "T4"})),
    )
)


def rooms():
    return [
        Room("G2", 32_000, 65_536, (WHOLE,) * 4),
        Room("G2", 32_000, 65_536, (WHOLE,) * 4),
        Room("T4", 24_000, 32_768, (WHOLE,) * 2),
        Room("T4", 24_000, 32_768, (WHOLE,) * 2),
    ]


@given(sizes)
@settings(deadline=None, max_examples=60)
def test_no_set_of_shares_that_fits_costs_more_than_its_device(demand):
    prices = share_prices(demand)
    assert set(prices) == set(demand)
    counts = [range(CELLS // size + 1) for size in prices if size > 12]
    large = [size for size in prices if size > 12]
    for pattern in product(*counts):
        if sum(n * size for n, size in zip(pattern, large, strict=True)) <= CELLS:
            assert sum(n * prices[s] for n, s in zip(pattern, large, strict=True)) <= 1 + 1e-6


@given(sizes)
@settings(deadline=None, max_examples=60)
def test_more_of_a_device_is_never_worth_less(demand):
    values = rest_values(demand)
    assert values[0] == 0.0
    assert values[CELLS] == 1.0
    assert list(values) == sorted(values)


def test_shares_that_tile_are_worth_their_part_and_others_the_whole():
    assert share_prices({50: 9.0})[50] == pytest.approx(0.5)
    assert share_prices({81: 9.0})[81] == pytest.approx(1.0)
    assert rest_values({81: 9.0})[19] == 0.0
    assert share_prices({}) == {}


def test_pressure_is_high_where_a_rare_chip_is_insisted_on():
    found = pressure({"T4": 3.0, "G2": 1.0}, {"T4": 10, "G2": 90})
    assert found["T4"] == pytest.approx(7.5)
    assert found["G2"] < 1
    assert pressure({}, {"T4": 10}) == {"T4": 0.0}


def test_devices_without_cpus_are_of_no_use():
    ahead = outlook(MIX, {"G2": 8}, 96_000, 8)
    starved = Room("G2", 1_000, 1_024, (WHOLE, 500, 0))
    assert unusable(starved, ahead) == pytest.approx(1.5)
    rich = Room("G2", 96_000, 1_024, (WHOLE,) * 8)
    assert unusable(rich, ahead) == pytest.approx(0.0)


def test_a_full_node_costs_nothing_and_cpus_kept_for_idle_devices_cost_less():
    ahead = outlook(MIX, {"G2": 8}, 96_000, 8)
    assert cost(Room("G2", 5_000, 0, (0, 0)), ahead, Weights()) == 0.0
    tight = cost(Room("G2", 8_000, 0, (WHOLE, WHOLE)), ahead, Weights())
    assert cost(Room("G2", 64_000, 0, (WHOLE, WHOLE)), ahead, Weights()) < tight


def test_a_share_fills_the_device_that_it_tiles():
    fleet = Fleet([Room("G2", 64_000, 65_536, (WHOLE, 190, 500))])
    for _ in range(70):
        fleet.arrive(Request(1_000, 1, 1, 810))
        fleet.arrive(Request(1_000, 1, 1, 500))
    spot = fleet.best(Request(1_000, 1, 1, 500))
    assert spot is not None
    assert spot.taken == (2,)


def test_a_chip_that_others_insist_on_is_left_to_them():
    fleet = Fleet(rooms())
    for _ in range(80):
        fleet.arrive(Request(1_000, 1, 1, WHOLE, frozenset({"T4"})))
        fleet.arrive(Request(1_000, 1, 1, WHOLE))
    spot = fleet.best(Request(1_000, 1, 1, WHOLE))
    assert spot is not None
    assert fleet.rooms[spot.node].chip == "G2"


@given(st.lists(requests, max_size=60), st.sampled_from((0.0, 0.3)))
@settings(deadline=None, max_examples=60)
def test_nothing_that_fits_is_refused_and_kept_scores_equal_fresh_ones(arrivals, per_arrival):
    fleet = Fleet(rooms())
    mover = Mover(fleet, per_arrival, core_worth=1.0)
    for number, request in enumerate(arrivals):
        fleet.arrive(request)
        spot = fleet.best(request)
        fresh = [fleet._quote(request, room)[0] for room in fleet.rooms]
        assert fleet.prices(request) == fresh
        assert (spot is None) == all(not tuple(choices(request, room)) for room in fleet.rooms)
        if spot is not None:
            assert spot.price == min(fresh) < inf
            fleet.put(str(number), request, spot.node, spot.taken)
        else:
            repair = mover.repair(request)
            if repair is not None:
                mover.apply(str(number), request, repair)
        assert mover.made <= per_arrival * fleet.arrived
    placed_as_recounted(fleet)


def placed_as_recounted(fleet):
    for start, room, residents in zip(rooms(), fleet.rooms, fleet.residents, strict=True):
        left = start
        for request, taken in residents.values():
            assert not request.chips or start.chip in request.chips
            assert len(set(taken)) == request.devices
            left = after(request, left, taken)
        assert left == room
        assert min(room.cpu_milli, room.memory_mib, *room.free) >= 0


def test_one_move_makes_room_for_a_large_request():
    fleet = Fleet([Room("G2", 32_000, 4_096, (WHOLE,) * 2), Room("G2", 32_000, 4_096, (WHOLE,))])
    small, large = Request(1_000, 1, 1, WHOLE), Request(1_000, 1, 2, WHOLE)
    mover = Mover(fleet, 1.0)
    fleet.arrive(small)
    fleet.put("small", small, 0, (0,))
    fleet.arrive(large)
    assert fleet.best(large) is None
    repair = mover.repair(large)
    assert repair is not None
    assert [(move.name, move.origin, move.spot.node) for move in repair.moves] == [("small", 0, 1)]
    mover.apply("large", large, repair)
    assert set(fleet.residents[0]) == {"large"}
    assert set(fleet.residents[1]) == {"small"}


def test_a_node_is_cleared_of_several_for_a_request_that_needs_it_whole():
    small, large = Request(1_000, 1, 1, WHOLE), Request(1_000, 1, 4, WHOLE)
    fleet = Fleet(
        [Room("G2", 32_000, 4_096, (WHOLE,) * 4)]
        + [Room("G2", 32_000, 4_096, (WHOLE,)) for _ in range(4)]
    )
    for i in range(4):
        fleet.arrive(small)
        fleet.put(f"small{i}", small, 0, (i,))
    fleet.arrive(large)
    assert Mover(fleet, 1.0, most_moves=3).repair(large) is None
    mover = Mover(fleet, 1.0)
    repair = mover.repair(large)
    assert repair is not None
    mover.apply("large", large, repair)
    assert set(fleet.residents[0]) == {"large"}
    assert mover.made == 4
    assert all(len(residents) == 1 for residents in fleet.residents[1:])


def test_room_for_cpus_alone_is_made_only_where_it_is_cheap():
    alone, small = Request(30_000, 1), Request(16_000, 1, 1, WHOLE)
    fleet = Fleet([Room("G2", 32_000, 4_096, (WHOLE,) * 2), Room("G2", 20_000, 4_096, (WHOLE,))])
    fleet.arrive(small)
    fleet.put("small", small, 0, (0,))
    fleet.arrive(alone)
    assert Mover(fleet, 1.0, core_worth=0.0).repair(alone) is None
    repair = Mover(fleet, 1.0, core_worth=1_000.0).repair(alone)
    assert repair is not None
    assert Mover(fleet, 1.0, core_worth=repair.price / 30 * 0.9).repair(alone) is None
    assert Mover(fleet, 1.0, core_worth=repair.price / 30 * 1.1).repair(alone) == repair


def test_where_cpus_are_scarce_none_are_kept_for_rests_that_nothing_tiles():
    pods = {Request(20_000, 1, 1, 810): 5, Request(20_000, 1): 5}
    scarce = outlook(pods, {"G2": 8}, 96_000, 8)
    plenty = outlook(pods, {"G2": 8}, 960_000, 8)
    assert (scarce.tension, plenty.tension) == (1.0, 0.0)
    scrap = [Room("G2", cpu, 0, (190, 190)) for cpu in (0, 16_000)]
    assert cost(scrap[0], scarce, Weights()) == cost(scrap[1], scarce, Weights())
    device = [Room("G2", cpu, 0, (WHOLE,)) for cpu in (0, 16_000)]
    assert cost(device[0], scarce, Weights()) > cost(device[1], scarce, Weights()) + 0.1


def test_without_a_budget_nothing_moves():
    fleet = Fleet([Room("G2", 9_000, 9, (WHOLE,)), Room("G2", 9_000, 9, (WHOLE,) * 2)])
    fleet.put("small", Request(1, 1, 1, WHOLE), 1, (0,))
    fleet.arrive(Request(1, 1, 2, WHOLE))
    assert Mover(fleet, 0.0).repair(Request(1, 1, 2, WHOLE)) is None


def test_leaving_undoes_a_placement():
    room, request = rooms()[0], Request(2_000, 100, 2, WHOLE)
    taken = next(iter(choices(request, room)))
    assert given_back(request, after(request, room, taken), taken) == room


def test_large_nodes_come_first_then_those_with_few_cpus_per_device():
    named = {
        "small": Room("T4", 10_000, 0, (WHOLE,)),
        "rich": Room("G2", 40_000, 0, (WHOLE,) * 2),
        "lean": Room("G2", 20_000, 0, (WHOLE,) * 2),
    }
    assert in_order(named) == ("lean", "rich", "small")
