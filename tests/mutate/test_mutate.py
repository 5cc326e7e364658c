"""Some planted money bugs are caught; all of them: ./dev mutate billing."""

import pytest

from tests.mutate.__main__ import ROOT, tried
from tests.mutate.money_bugs import BUGS
from tests.mutate.planted import named


def test_every_planted_bug_still_has_its_place():
    stale = {
        bug.name: count
        for bug in BUGS
        if (count := (ROOT / bug.path).read_text("utf-8").count(bug.old)) != bug.times
    }
    assert stale == {}


def test_there_are_enough_and_each_has_who_looks_for_it():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 100
    for bug in BUGS:
        assert bug.old != bug.new, bug.name
        for test in bug.tests:
            assert named(test, ROOT), bug.name


@pytest.mark.slow
def test_a_handful_of_planted_bugs_is_caught():
    bugs = [bug for bug in BUGS if bug.quick]
    assert len(bugs) == 5
    assert tried(bugs) == []
