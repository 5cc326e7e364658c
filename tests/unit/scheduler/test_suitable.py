"""A job is never sent to a driver that cannot run it, and is told which would do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Needs, Software
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.plan import Placed, Waiting, decide
from gridlease_scheduler.domain.snapshot import Pending

BOOK = catalogue.load()
GIB = 2**30


def _node(name: str, chip: str, **drivers: str) -> Node:
    found = BOOK.find(chip)
    assert found is not None
    return Node(
        name, "s", "cpu-x86-64", 64_000, 512 * GIB, 10**13,
        (Device("gpu-0", chip, found.vendor, found.memory_bytes),),
        drivers=tuple(drivers.items()), architecture="x86_64",
    )  # fmt: skip


def _job(software: Software, chips: tuple[str, ...] = ()) -> Pending:
    needs = Needs(1_000, GIB, GIB, AcceleratorNeed(chips), software=software)
    return Pending("j", "t", "p", 1, 0, 1, 0, 0, needs)


OLD = _node("old", "A100-80GB", cuda="470.57.02")
NEW = _node("new", "A100-80GB", cuda="580.65.06")


def test_the_node_whose_driver_is_new_enough_is_chosen() -> None:
    for nodes in ((OLD, NEW), (NEW, OLD)):
        decision = decide(_job(Software("cuda", "12.8")), nodes, BOOK)
        assert isinstance(decision, Placed)
        assert decision.node_id == "new"


@pytest.mark.parametrize(
    ("software", "code", "words"),
    [
        (Software("cuda", "12.8"), "DRIVER_TOO_OLD", "570"),
        (Software("cuda", "9.0"), "CAPABILITY_NOT_IN_TOOLKIT", "9.0"),
        (Software("rocm", "6.2"), "ARCHITECTURE_MISMATCH", "ROCm"),
    ],
)
def test_where_none_will_do_the_reason_names_what_would(
    software: Software, code: str, words: str
) -> None:
    decision = decide(_job(software), (OLD,), BOOK)
    assert isinstance(decision, Waiting)
    assert decision.reason.code == code
    assert words in decision.reason.message + decision.reason.hint
    assert decision.reason.evidence["node"] == "old"
    assert decision.ruled_out == {"SOFTWARE_UNFIT": 1}


def test_a_driver_that_is_not_told_is_not_trusted() -> None:
    decision = decide(_job(Software("cuda", "12.4")), (replace(NEW, drivers=()),), BOOK)
    assert isinstance(decision, Waiting)
    assert decision.reason.code == "DRIVER_UNKNOWN"


def test_what_says_nothing_of_its_software_may_run_anywhere() -> None:
    assert isinstance(decide(_job(Software()), (replace(OLD, drivers=()),), BOOK), Placed)


def test_the_chip_that_the_program_is_built_for_is_taken() -> None:
    other = _node("amd", "MI300X-192GB", rocm="6.2.0")
    for software, name in ((Software("rocm", "6.2"), "amd"), (Software("cuda", "12.4"), "new")):
        decision = decide(_job(software), (other, NEW), BOOK)
        assert isinstance(decision, Placed)
        assert decision.node_id == name
