"""Shares of two or three devices are divided anew where that makes room for one more."""

from gridlease_scheduler.domain.placing.exchanges import Exchanger
from gridlease_scheduler.domain.placing.fragmentation import WHOLE, Request, Room
from gridlease_scheduler.domain.placing.moves import Mover
from gridlease_scheduler.domain.placing.packing import Fleet


def fleet_of(*devices: tuple[int, ...], cpu_milli: int = 99_000) -> Fleet:
    """Nodes with one device each, shared as given; every share asks for one core."""
    fleet = Fleet([Room("G2", cpu_milli, 1_000, (WHOLE,)) for _ in devices])
    for node, shares in enumerate(devices):
        for i, milli in enumerate(shares):
            fleet.put(f"{node}/{i}", share(milli), node, (0,))
    fleet.arrived = 100
    return fleet


def share(milli: int, chips: frozenset[str] = frozenset()) -> Request:
    return Request(1_000, 1, 1, milli, chips)


def shared(fleet: Fleet) -> set[tuple[int, ...]]:
    """Who sits together."""
    return {
        tuple(sorted(request.device_milli for request, _ in residents.values()))
        for residents in fleet.residents
    }


def test_two_who_change_places_make_room_for_a_third():
    fleet = fleet_of((320, 460), (320, 460))
    mover = Mover(fleet, 1.0)
    assert fleet.best(share(320)) is None
    repair = mover.repair(share(320))
    assert repair is not None
    assert len(repair.moves) == 2
    mover.apply("late", share(320), repair)
    assert shared(fleet) == {(320, 320, 320), (460, 460)}
    assert mover.made == 2
    assert [room.free for room in fleet.rooms] in ([(40,), (80,)], [(80,), (40,)])


def test_three_devices_are_divided_where_two_do_not_do():
    devices = ((300, 600), (300, 500), (500, 400))
    assert all(
        Mover(fleet_of(*(devices[i] for i in pair)), 1.0).repair(share(400)) is None
        for pair in ((0, 1), (0, 2), (1, 2))
    )
    fleet = fleet_of(*devices)
    mover = Mover(fleet, 1.0)
    repair = mover.repair(share(400))
    assert repair is not None
    mover.apply("late", share(400), repair)
    assert shared(fleet) == {(400, 600), (500, 500), (300, 300, 400)}


def test_no_exchange_beyond_the_budget_the_cpus_or_the_chips():
    found = Exchanger(fleet_of((320, 460), (320, 460))).find(share(320), 2)
    assert found is not None
    assert Exchanger(fleet_of((320, 460), (320, 460))).find(share(320), 1) is None
    assert Exchanger(fleet_of((320, 460), (320, 460), cpu_milli=2_000)).find(share(320), 2) is None
    insisting = share(320, frozenset({"T4"}))
    assert Exchanger(fleet_of((320, 460), (320, 460))).find(insisting, 2) is None


def test_what_failed_is_tried_again_once_other_kinds_of_devices_are_there():
    fleet = fleet_of((320, 460), (320, 460), (900,))
    exchanger = Exchanger(fleet)
    assert exchanger.find(share(650), 4) is None
    fleet.take("2/0", 2)
    fleet.put("new", share(400), 2, (0,))
    found = exchanger.find(share(650), 4)
    assert found is not None


def test_rests_that_would_be_filled_are_not_broken_up():
    fleet = fleet_of((320, 460), (320, 460))
    for _ in range(200):
        fleet.arrive(share(220))  # beside them, 220 thousandths are worth a quarter of a device
    assert fleet.ahead.rest[22] * 2 > 0.26
    assert Exchanger(fleet).find(share(320), 4) is None
