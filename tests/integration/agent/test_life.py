"""One real agent, real sandboxes, a real broker: the life of a lease."""

from __future__ import annotations

from gridlease.agent.v1 import files_pb2

from gridlease_testkit.waiting import eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre


async def test_a_task_runs_to_success_and_is_gone(centre: Centre, agent: Agent) -> None:
    centre.want(
        "ls-1",
        ["echo hello $GRIDLEASE_JOB $RANK; mkdir out; echo 42 > out/answer"],
        outputs=["out"],
    )
    await eventually(lambda: centre.gone("ls-1"), 20, str(agent.log))
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")
    assert 0 < centre.charged_ns("ls-1") == ended.ran_ns
    log = [piece async for piece in centre.files().ReadLogs(files_pb2.ReadLogsRequest(lease="ls-1"))]
    assert b"".join(piece.content for piece in log) == b"hello projects/demo/jobs/j-ls-1 0\n"
    listed = await centre.files().ListArtefacts(files_pb2.ListArtefactsRequest(lease="ls-1"))
    assert [one.path for one in listed.artefacts] == ["out/answer"]
    request = files_pb2.ReadArtefactRequest(lease="ls-1", path="out/answer")
    content = [piece async for piece in centre.files().ReadArtefact(request)]
    assert content[0].content == b"42\n"
    centre.forget("ls-1")
    await eventually(lambda: not centre.syncs[-1].leases)
    assert not (agent.state / "leases" / "ls-1").exists()
