"""Every scenario file: what the production planner decides is what the file says."""

from pathlib import Path

import pytest
from gridlease_scheduler.domain.order.reserve import Booked, Full, book
from gridlease_scheduler.domain.plan import Placed, Waiting
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.stock import stock

from tests.scenarios.reading import NOW, ORDINALS, read
from tests.scenarios.words import UnreadableError

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def told(span_ms):
    """A span in words."""
    hours, rest = divmod(span_ms // 1_000, 3_600)
    parts = ((hours, "h"), (rest // 60, "m"), (rest % 60, "s"))
    return "".join(f"{n}{u}" for n, u in parts if n) or "0s"


def decided(snapshot):
    """What becomes of each job, in the words of a scenario: facts by job."""
    ruling = rule(snapshot)
    facts = {}
    for at, decision in enumerate(ruling.decisions):
        place = ORDINALS[at] if at < len(ORDINALS) else str(at + 1)
        match decision:
            case Placed(task=task, members=members):
                where = " ".join(sorted(x.node_id for x in members))
                facts[task.job] = {"place": place, "fate": f"starts on {where}"}
                facts[task.job]["over"] = " and ".join(sorted({",".join(x.path) for x in members}))
            case Waiting(task=task, reason=reason):
                facts[task.job] = {"place": place, "fate": f"waits {reason.code}"}
                if "earliest_start_ms" in reason.evidence:
                    span = int(reason.evidence["earliest_start_ms"]) - NOW
                    facts[task.job]["by"] = told(span)
    for eviction in ruling.evictions:
        for victim in eviction.victims:
            facts[victim.job] = {"fate": f"ends for {eviction.task.job}"}
            assert victim.notice_ms <= eviction.notice_ms
    return facts


def otherwise_decided(scenario):
    """What is decided beside the queue: bookings."""
    now, facts = scenario.snapshot, {}
    for asked in scenario.asked:
        match book(asked, now.reservations, stock(now.nodes)):
            case Booked():
                facts[asked.name] = {"fate": "is booked"}
            case Full(fits_at_ms=0):
                facts[asked.name] = {"fate": "is refused"}
            case Full(fits_at_ms=at):
                facts[asked.name] = {"fate": f"is refused, free in {told(at - NOW)}"}
    return facts


def differences(expected, facts):
    """Lines of what is not as it should be: what the file says, and what was decided."""
    lines = []
    for job, want in expected.items():
        have = facts.get(job, {"fate": "goes on"})
        pairs = []
        if want.nodes is not None:
            wanted = " ".join(["starts on", *sorted(want.nodes)]) if want.nodes else "starts"
            starts = have["fate"].startswith("starts")
            pairs.append((wanted, "starts" if starts and not want.nodes else have["fate"]))
        if want.code:
            pairs.append((f"waits {want.code}", have["fate"]))
        if want.ends_for:
            pairs.append((f"ends for {want.ends_for}", have["fate"]))
        if want.booking:
            pairs.append((want.booking, have["fate"]))
        if want.by_ms is not None:
            pairs.append((f"by {told(want.by_ms)}", f"by {have.get('by', 'no known time')}"))
        if want.over:
            pairs.append((f"over {want.over}", f"over {have.get('over') or 'no link'}"))
        if want.place is not None:
            pairs.append((ORDINALS[want.place - 1], have.get("place", "not in the queue")))
        lines += [f"  {job:<12} {x:<28} but: {y}" for x, y in pairs if x != y]
    for job, have in facts.items():
        if have["fate"].startswith("ends") and job not in expected:
            lines.append(f"  {job:<12} {'goes on':<28} but: {have['fate']}")
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda x: x.stem)
def test_scenario(path):
    scenario = read(path.read_text(encoding="utf-8"))
    assert scenario.expected, f"{path.name} expects nothing"
    lines = differences(scenario.expected, decided(scenario.snapshot) | otherwise_decided(scenario))
    if lines:
        pytest.fail("\n".join([f"{path.name}: {scenario.title}", *lines]), pytrace=False)


@pytest.mark.parametrize(
    "line", ["cluster\n  n1  8 teapots", "cluster\nkitchen\n", "waits\n  j  1 A100 since yesterday"]
)
def test_what_says_nothing_is_refused(line):
    with pytest.raises(UnreadableError):
        read(f"A title\n{line}")
