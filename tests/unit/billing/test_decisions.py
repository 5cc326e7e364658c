"""Calls that come while others are decided are decided together, and fail alone."""

import asyncio

import pytest
from gridlease_billing import decisions
from gridlease_billing.decisions import AT_ONCE, MOST_TOGETHER, Decisions
from gridlease_billing.domain.grant_row import Phase, Report, Terms
from gridlease_billing.settle import Settled


class Slow:
    """Stands for what decides: notes whose calls were together, and waits until it is let go."""

    def __init__(self, monkeypatch):
        self.together = []
        self.free = asyncio.Event()
        self.bad = set()
        monkeypatch.setattr(decisions, "decide_all", self.decide_all)
        monkeypatch.setattr(decisions, "decide_together", self.decide_together)

    async def decide_all(self, books, node, reports, terms, proof):
        return (await self.decide_together(books, [(node, reports)], terms, proof))[0]

    async def decide_together(self, _books, calls, _terms, _proof):
        self.together.append([node for node, _ in calls])
        await self.free.wait()
        if self.bad & {node for node, _ in calls}:
            raise LookupError
        return [Settled((), {}, len(node)) for node, _ in calls]


@pytest.fixture
def slow(monkeypatch):
    return Slow(monkeypatch)


async def ask(made, *nodes, reports=1):
    told = [Report(f"l{n}", "s", Phase.STARTING) for n in range(reports)]
    tasks = [asyncio.create_task(made.decide(node, told)) for node in nodes]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def decided():
    return Decisions(None, Terms(), lambda *_: True)


async def test_who_comes_while_others_are_decided_is_decided_with_them(slow):
    made = decided()
    tasks = await ask(made, *[f"n{n}" for n in range(AT_ONCE)], "a", "bb", "a", "ccc")
    slow.free.set()
    found = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert slow.together == [["n0"], ["n1"], ["a", "bb", "ccc"], ["a"]]
    assert [it.now_ms for it in found[AT_ONCE:]] == [1, 2, 1, 3]


async def test_so_many_are_decided_together_and_no_more(slow):
    made = decided()
    tasks = await ask(made, "n0", "n1", "a", "b", "c", reports=MOST_TOGETHER // 2)
    slow.free.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert slow.together == [["n0"], ["n1"], ["a", "b"], ["c"]]


async def test_a_call_that_fails_does_so_alone(slow):
    made = decided()
    slow.bad = {"b"}
    tasks = await ask(made, "n0", "n1", "a", "b", "c")
    slow.free.set()
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(it) for it in found] == [Settled, Settled, Settled, LookupError, Settled]


async def test_who_waits_when_it_closes_hears_of_it(slow):
    made = decided()
    tasks = await ask(made, "n0", "n1", "a")
    await made.close()
    with pytest.raises(ConnectionAbortedError):
        await tasks[2]
    slow.free.set()
    await asyncio.wait_for(asyncio.gather(*tasks[:2]), 5)
