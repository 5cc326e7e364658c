"""A device is never free without a verified scrub on record, wherever the agent dies."""

from __future__ import annotations

from collections.abc import Callable

from gridlease_agent.domain import lease, release
from gridlease_agent.domain.release import Release, Stage
from gridlease_agent.domain.spool import Phase, Row, Spool, Wiped
from hypothesis import given
from hypothesis import strategies as st

_PROOF = Wiped("gpu-0", "pattern-readback", 1)
_EVENTS = ("start", "end", "scrub", "pass", "fail", "record", "crash")


class _Node:
    """A device as its agent has it: a stage in memory, ``dirty`` and the proof on disk."""

    def __init__(self) -> None:
        row = Row("ls-1", ("gpu-0",), "b", 0, 1, phase=Phase.EXITED)
        self.disk = Spool("s", dirty=frozenset({"gpu-0"}), rows={"ls-1": row})
        self.held = False
        self.now = release.recovered(dirty=True, held=False)
        self.proven = 0  # scrubs that the device itself confirmed since its last task

    def take(self, event: str) -> None:
        steps: dict[tuple[str, Stage], Callable[[], Release]] = {
            ("start", Stage.FREE): self._start,
            ("end", Stage.ASSIGNED): self._end,
            ("scrub", Stage.QUARANTINED): lambda: release.scrubbing(self.now),
            ("pass", Stage.SCRUBBING): self._pass,
            ("fail", Stage.SCRUBBING): lambda: release.failed(self.now, "no"),
            ("record", Stage.VERIFIED): self._record,
        }
        if event == "crash":
            dirty = "gpu-0" in self.disk.dirty
            self.now = release.recovered(dirty=dirty, held=self.held)
            return
        step = steps.get((event, self.now.stage))
        if step is not None:
            self.now = step()

    def _start(self) -> Release:
        after = release.assigned(self.now)
        self.disk = Spool("s", dirty=frozenset({"gpu-0"}), rows=self.disk.rows)  # before exec
        self.held, self.proven = True, 0
        return after

    def _end(self) -> Release:
        self.held = False
        return release.quarantined(self.now)

    def _pass(self) -> Release:
        self.proven += 1
        return release.verified(self.now, _PROOF)

    def _record(self) -> Release:
        self.disk = lease.scrubbed(self.disk, ["gpu-0"], {"gpu-0": (_PROOF,)})
        return release.freed(self.now)


@given(st.lists(st.sampled_from(_EVENTS), max_size=60))
def test_no_path_leads_to_free_without_a_scrub_on_record(events: list[str]) -> None:
    node = _Node()
    for event in events:
        node.take(event)
        if node.now.stage is Stage.FREE:
            assert node.proven > 0, "free, and nothing confirmed that it was wiped"
            assert "gpu-0" not in node.disk.dirty
        else:
            assert node.now.dirty == ("gpu-0" in node.disk.dirty), node.now
        assert not (node.held and node.now.stage is not Stage.ASSIGNED)


def test_the_proof_stays_with_the_lease_until_the_scheduler_has_it() -> None:
    node = _Node()
    for event in ("scrub", "fail", "scrub", "pass", "record"):
        node.take(event)
    row = node.disk.rows["ls-1"]
    assert (row.phase, row.wiped) == (Phase.CLEAN, (_PROOF,))
    (seen,) = lease.sync_report(node.disk)
    assert seen.wiped == (_PROOF,)
    acknowledged = node.disk.with_rows(
        Row("ls-1", ("gpu-0",), "b", 0, 1, phase=Phase.CLEAN, wiped=(_PROOF,),
            final_acknowledged=True)
    )  # fmt: skip
    assert not lease.deletable(acknowledged, acknowledged.rows["ls-1"])
    told = lease.receipts_told(acknowledged, ["ls-1", "ls-unknown"])
    assert lease.deletable(told, told.rows["ls-1"])


def test_a_device_that_fails_again_and_again_is_tried_ever_more_rarely() -> None:
    one = Release(Stage.QUARANTINED)
    pauses = []
    for _ in range(12):
        one = release.failed(release.scrubbing(one), "no")
        pauses.append(release.pause_ms(one))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (2_000, 600_000)
