"""What the ends of an attempt's leases mean for the job, and for the members that still run.

A gang lives and dies together: a member that ends by itself with code 0 is done; when one ends
otherwise, the others are told to end (``follow``), and once all are CLOSED ``ended`` says what the
job is: SUCCEEDED, CANCELLED, FAILED by its own doing, or placed again as a whole where any end was
the platform's doing. A job of one task is a gang of one.

The state that results depends on the ends alone, not on the order in which they came to be known
or in which leases were closed. Only the words do: of several tasks that failed unasked, the one of
the lowest index is named.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from .job import JobState, Reason
from .lease import Cause, Exit, Lease, Phase

GANG_ENDED = "GANG_ENDED"
RESIZED = "RESIZED"
SCALED_TO_ZERO = "SCALED_TO_ZERO"
DEFRAGMENTED = "DEFRAGMENTED"
IDLE = "IDLE"  # nobody used a dev-environment: it was stopped by its tenant's own rule


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a job stands once all leases of its attempt are CLOSED."""

    state: JobState
    reason: Reason


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How one member ended. ``ran_ns`` is of this lease."""

    exit_code: int
    ran_ns: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Member:
    """One member's lease of the attempt that ends. ``stop``: why it was told to end, if it was."""

    index: int
    lease: Lease
    stop: Reason = field(default_factory=Reason)
    exit_message: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a job is placed again. ``evicted``: attempts that ended by eviction, this one
    too; they are not counted."""

    max_attempts: int
    evicted: int = 0
    requeue: bool = True


class Kind(enum.Enum):
    """What one member's end is to its job."""

    DONE = "DONE"
    CANCELLED = "CANCELLED"
    AGAIN = "AGAIN"  # the platform's doing
    FAILED = "FAILED"  # its own doing
    FOLLOWED = "FOLLOWED"  # it was told to end because another had failed


# Ends that are the platform's doing and not the task's: it is placed again. A task that exits by
# itself, with whatever code, is never run a second time for that.
_PLACED_AGAIN = {
    "NODE_LOST": "its node fell silent",
    "START_LOST": "its node lost it while it was starting",
    "NODE_REBOOT": "its node was restarted",
    "NEVER_STARTED": "it could not be started in time",
    "DEADLINE": "its grant ended unrenewed",
    "DRAINED": "its node is being emptied",
    "PREEMPTED": "its place was needed",
    RESIZED: "its number of tasks changes",
    SCALED_TO_ZERO: "nobody asked for it",
    DEFRAGMENTED: "it makes room by moving",
}
# The slow path's own words: whoever is told so is placed again, whatever it asked for.
_ARRANGED = (RESIZED, SCALED_TO_ZERO, DEFRAGMENTED)
# Of these also a member that was told to end is a witness.
_NODE_FAILED = ("START_LOST", "NODE_REBOOT")
_WORDS = {
    "EXITED": "The task exited with code {code}.",
    "OOM_KILLED": "The task used more memory than it asked for and was killed.",
    "DISK_QUOTA": "The task wrote more to its disk than it asked for and was stopped.",
    "MAX_DURATION": "The task reached its max_duration and was stopped.",
    "BUDGET_EXHAUSTED": "The budget or the credit was used up, so the task was stopped.",
    "START_FAILED": "The task could not be started.",
    "STOPPED": "The task was stopped.",
}
_HINTS = {
    "EXITED": "Read its logs.",
    "OOM_KILLED": "Ask for more memory.",
    "DISK_QUOTA": "Ask for more disk.",
    "MAX_DURATION": "Raise max_duration.",
    "BUDGET_EXHAUSTED": "Raise the budget or pay in credit, and submit it again.",
    "START_FAILED": "Read its logs; check its runtime and its files.",
}


def placed_again(cause: Cause | None, end: Exit | None) -> str:
    """The reason code by which a task whose lease ended so is placed again; empty = it is not."""
    if end is not None and end.reason in _PLACED_AGAIN:
        return end.reason
    if end is not None and end.reason != "STOPPED":
        return ""  # it came to its own end, also on a node that was given up meanwhile
    return str(cause) if cause in (Cause.NODE_LOST, Cause.DRAINED, Cause.PREEMPTED) else ""


def kind(member: Member) -> Kind:
    """What one member's end is to its job; of a CLOSING lease: as far as is known."""
    lease, end = member.lease, member.lease.exit
    if lease.cause is Cause.STOPPED or (end is not None and end.reason == IDLE):
        return Kind.CANCELLED
    if end is not None and end.reason == "EXITED" and end.code == 0:
        return Kind.DONE
    if member.stop.code == GANG_ENDED and lease.cause is Cause.EXITED:
        # Silent to the end although it was known there: its node is lost, which may be why the
        # others failed at all.
        silent = end is None and lease.phase > Phase.UNSEEN
        return Kind.AGAIN if silent or _node_failed(end) else Kind.FOLLOWED
    if placed_again(lease.cause, end):
        return Kind.AGAIN
    return Kind.FAILED


def follow(members: Sequence[Member]) -> tuple[Cause, Reason] | None:
    """Why the members that still run must end, if one of those that do not run made it so.

    Args:
        members: Those of the attempt that are CLOSING or CLOSED.
    """
    for member in sorted(members, key=lambda x: (x.stop.code == GANG_ENDED, x.index)):
        match kind(member):
            case Kind.DONE | Kind.CANCELLED:
                continue
            case Kind.AGAIN:
                code = again_code(member)
                cause = member.lease.cause
                if cause not in (Cause.DRAINED, Cause.PREEMPTED):
                    cause = Cause.NODE_LOST
                why = f"Task {member.index} ended because {_PLACED_AGAIN[code]}"
                return cause, _follows(member, why, "all of them are placed again")
            case Kind.FAILED | Kind.FOLLOWED:
                why = f"Task {member.index} failed"
                return Cause.EXITED, _follows(member, why, "the others cannot go on without it")
    return None


def ended(state: JobState, members: Sequence[Member], patience: Patience) -> Outcome:
    """What the job is, now that all leases of its attempt are CLOSED."""
    assert members
    kinds = {member.index: kind(member) for member in members}
    by_index = sorted(members, key=lambda x: x.index)
    if state is JobState.STOPPING or Kind.CANCELLED in kinds.values():
        first = next((x for x in by_index if kinds[x.index] is Kind.CANCELLED), by_index[0])
        return Outcome(JobState.CANCELLED, _cancelled(first, _evidence(first)))
    again = [x for x in by_index if kinds[x.index] is Kind.AGAIN]
    if again:
        return _again(min(again, key=_followed), patience, gang=len(members) > 1)
    failed = [x for x in by_index if kinds[x.index] in (Kind.FAILED, Kind.FOLLOWED)]
    if not failed:
        return Outcome(JobState.SUCCEEDED, task_end(by_index[0]).reason)
    first = min(failed, key=_followed)
    reason = task_end(first).reason
    if len(members) > 1:
        message = f"Task {first.index} of {len(members)}: {reason.message}"
        reason = Reason(reason.code, message, reason.hint, reason.evidence)
    return Outcome(JobState.FAILED, reason)


def task_end(member: Member) -> TaskEnd:
    """How one member ended, for its own record."""
    end = member.lease.exit
    code, ran_ns = (end.code, end.ran_ns) if end is not None else (0, 0)
    return TaskEnd(code, ran_ns, _why(member))


def _why(member: Member) -> Reason:
    evidence = _evidence(member)
    match kind(member):
        case Kind.CANCELLED:
            return _cancelled(member, evidence)
        case Kind.AGAIN:
            why = again_code(member)
            return Reason(why, f"It ended because {_PLACED_AGAIN[why]}.", "", evidence)
        case Kind.FOLLOWED:
            message = member.stop.message or "It was told to end with the others."
            return Reason(GANG_ENDED, message, "", evidence)
        case Kind.DONE | Kind.FAILED:
            return _own(member, evidence)


def _cancelled(member: Member, evidence: dict[str, str]) -> Reason:
    end = member.lease.exit
    if member.lease.cause is not Cause.STOPPED and end is not None and end.reason == IDLE:
        hint = "Raise idle_stop to keep it for longer."
        return Reason(IDLE, "Nobody had a session in it for its idle_stop.", hint, evidence)
    return Reason("CANCELLED", "It was stopped by its tenant.", "", evidence)


def _own(member: Member, evidence: dict[str, str]) -> Reason:
    """Words for an end that was the task's own."""
    end = member.lease.exit
    assert end is not None, member
    message = _WORDS.get(end.reason, "The task ended.").format(code=end.code)
    if member.exit_message and end.reason != "EXITED":
        message = f"{message} {member.exit_message}"
    hint = "" if end.reason == "EXITED" and end.code == 0 else _HINTS.get(end.reason, "")
    return Reason(end.reason, message, hint, evidence)


_KILLED = (137, -9)


def notice_missed_ms(lease: Lease, given_ms: int | None) -> int:
    """How much of the warning that the platform owed a task was not given, in milliseconds.

    Nothing is owed to one that ended by itself: on its own, or in answer to the warning.

    Args:
        given_ms: From the word to end to the report of the end; None = none was reported.
    """
    if lease.cause not in (Cause.PREEMPTED, Cause.DRAINED) or lease.phase < Phase.STARTING:
        return 0
    end = lease.exit
    if end is not None and not placed_again(lease.cause, end):
        return 0
    if end is not None and (end.code not in _KILLED or not end.ran_ns):
        return 0
    return max(0, lease.notice_ms - (given_ms or 0))


def again_code(member: Member) -> str:
    """The code by which a member is placed again."""
    lease = member.lease
    if lease.cause is Cause.PREEMPTED and member.stop.code in _ARRANGED:
        return member.stop.code
    return placed_again(lease.cause, lease.exit) or "NODE_LOST"


def _again(member: Member, patience: Patience, *, gang: bool) -> Outcome:
    lease, code = member.lease, again_code(member)
    why, evidence = _PLACED_AGAIN[code], _evidence(member)
    if gang:
        why = f"of task {member.index}: {why}"
    if code == "PREEMPTED" and not patience.requeue:
        message = f"Attempt {lease.attempt} ended because {why}; it asked not to wait again."
        hint = "Leave on_preemption out, so that it waits for a new place."
        return Outcome(JobState.FAILED, Reason(code, message, hint, evidence))
    if lease.attempt - patience.evicted < patience.max_attempts:
        then = "it waits to be placed again"
        if code == SCALED_TO_ZERO:
            then = "it rests until a request comes"
        message = f"Attempt {lease.attempt} ended because {why}; {then}."
        return Outcome(JobState.PENDING, Reason(code, message, "", evidence))
    message = f"Attempt {lease.attempt}, the last allowed, ended because {why}."
    hint = "Raise max_attempts, or submit it again."
    return Outcome(JobState.FAILED, Reason(code, message, hint, evidence))


def _follows(member: Member, why: str, then: str) -> Reason:
    return Reason(
        GANG_ENDED, f"{why}; {then}.", "", {"task": str(member.index), "of": member.lease.lease_id}
    )


def _followed(member: Member) -> bool:
    return member.stop.code == GANG_ENDED


def _node_failed(end: Exit | None) -> bool:
    return end is not None and end.reason in _NODE_FAILED


def _evidence(member: Member) -> dict[str, str]:
    lease = member.lease
    evidence = {"attempt": str(lease.attempt), "lease": lease.lease_id, "node": lease.node_id}
    if lease.exit is not None:
        evidence["exit_code"] = str(lease.exit.code)
        evidence["ran_ns"] = str(lease.exit.ran_ns)
    if member.stop.code:
        evidence["told"] = member.stop.code
    return evidence
