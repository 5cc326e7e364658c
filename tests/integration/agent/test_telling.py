"""What a task tells of itself reaches the scheduler; what is said of its end reaches the task."""

from __future__ import annotations

import json
from datetime import datetime

from gridlease_testkit.waiting import eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre

# Saves only when it is told to end, and says what it was told.
SAVES = (
    "trap 'cat $GRIDLEASE_NOTICE_FILE; "
    'echo "{\\"id\\": \\"step-${GRIDLEASE_CHECKPOINT:-7}\\"}" > $GRIDLEASE_REPORT_DIR/new; '
    "mv $GRIDLEASE_REPORT_DIR/new $GRIDLEASE_REPORT_DIR/checkpoint.json; exit 0' TERM; "
    "echo from ${GRIDLEASE_CHECKPOINT:-the beginning}; while true; do sleep 0.05; done"
)


def log_of(agent: Agent, lease: str) -> bytes:
    for folder in ("leases", "kept"):
        path = agent.state / folder / lease / "log"
        if path.exists():
            return path.read_bytes()
    return b""


def saved(centre: Centre, lease: str) -> str:
    one = centre.seen(lease)
    return one.checkpoint.id if one is not None else ""


async def test_what_is_saved_at_the_warning_is_what_the_next_attempt_gets(
    centre: Centre, agent: Agent
) -> None:
    centre.want("ls-1", [SAVES], notice_ms=20_000, outputs=["*"])
    await eventually(lambda: b"from the beginning" in log_of(agent, "ls-1"), 20)
    centre.end("ls-1", 20_000, "PREEMPTED", "A job of priority 90 needs its place.")
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended, seen = centre.exit("ls-1"), centre.seen("ls-1")
    assert ended is not None
    assert seen is not None
    assert (ended.exit_code, ended.reason) == (0, "STOPPED")
    assert seen.checkpoint.id == "step-7"
    assert seen.checkpoint.create_time.seconds > 1_600_000_000
    assert not (agent.state / "kept" / "ls-1" / "files" / ".gridlease").exists()
    notice = json.loads(log_of(agent, "ls-1").partition(b"\n")[2])
    assert notice["reason"] == "PREEMPTED"
    assert notice["message"] == "A job of priority 90 needs its place."
    assert 10_000 < notice["notice_ms"] <= 20_000
    assert datetime.fromisoformat(notice["deadline"]).tzinfo is not None

    centre.want("ls-2", [SAVES], checkpoint=seen.checkpoint.id)
    await eventually(lambda: b"from step-7" in log_of(agent, "ls-2"), 20)
    assert saved(centre, "ls-1") == "step-7"  # told until the lease is forgotten
    centre.forget("ls-1")
    await eventually(lambda: all(one.lease != "ls-1" for one in centre.syncs[-1].leases), 10)


async def test_progress_is_told_while_it_runs(centre: Centre, agent: Agent) -> None:
    tells = (
        'cd $GRIDLEASE_REPORT_DIR; echo \'{"steps": 5, "step_ms": 2.5, "batch_size": 64, '
        '"gradient_sqr": 0.5, "gradient_var": 8, "steps_total": 90, "in_flight": 1.5}\' > new; '
        'mv new progress.json; echo \'{"id": "a"}\' > checkpoint.json; sleep 60'
    )
    centre.want("ls-1", [tells])
    await eventually(lambda: saved(centre, "ls-1") == "a", 20)

    def told() -> bool:
        one = centre.seen("ls-1")
        return one is not None and one.HasField("progress")

    await eventually(told, 10)
    one = centre.seen("ls-1")
    assert one is not None
    found = {field.name: value for field, value in one.progress.ListFields()}
    assert found == {
        "steps": 5,
        "step_ns": 2_500_000,
        "batch_size": 64,
        "gradient_sqr": 0.5,
        "gradient_var": 8.0,
        "steps_total": 90,
        "in_flight_milli": 1500,
    }


async def test_a_checkpoint_outlives_the_agent_that_saw_it(centre: Centre, agent: Agent) -> None:
    """The task ends, with a last word, while no agent is there; and the next agent dies too."""
    centre.want("ls-1", [SAVES], notice_ms=20_000)
    await eventually(lambda: b"from the beginning" in log_of(agent, "ls-1"), 20)
    stop = {"reason": "STOPPED", "boottime_ns": 2**62}
    folder = agent.state / "leases" / "ls-1"
    stop["boot_id"] = json.loads((folder / "started.json").read_text())["boot_id"]
    agent.kill()
    (folder / "stop.json").write_text(json.dumps(stop))
    await eventually((folder / "exit.json").exists, 20)
    centre.syncs.clear()
    await agent.start()
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert saved(centre, "ls-1") == "step-7"
    agent.kill()
    centre.syncs.clear()
    await agent.start()
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert saved(centre, "ls-1") == "step-7"


async def test_a_hostile_folder_does_not_hold_the_node_up(centre: Centre, agent: Agent) -> None:
    bad = "cd $GRIDLEASE_REPORT_DIR; ln -s /proc/1/environ checkpoint.json; mkfifo progress.json"
    centre.want("ls-1", [f"{bad}; echo done; sleep 60"])
    await eventually(lambda: b"done" in log_of(agent, "ls-1"), 20)
    before = len(centre.syncs)
    await eventually(lambda: len(centre.syncs) > before + 3, 10)
    seen = centre.seen("ls-1")
    assert seen is not None
    assert not seen.HasField("checkpoint")
    assert not seen.HasField("progress")
    assert agent.log.read_text().count("a task's report was ignored") == 1
