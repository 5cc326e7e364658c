"""One real agent, real sandboxes, a real broker: the life of a lease."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time

import grpc.aio
import pytest
from gridlease.agent.v1 import files_pb2
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre


async def logs(centre: Centre, lease: str, *, follow: bool = False, offset: int = 0) -> bytes:
    request = files_pb2.ReadLogsRequest(lease=lease, follow=follow, offset_bytes=offset)
    pieces = [piece async for piece in centre.files().ReadLogs(request, timeout=20)]
    return b"".join(piece.content for piece in pieces)


def tar(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


async def test_a_task_runs_to_success_and_is_gone(centre: Centre, agent: Agent) -> None:
    centre.want(
        "ls-1",
        ["echo hello $GRIDLEASE_JOB $RANK; mkdir out; echo 42 > out/answer; echo no > other"],
        outputs=["out"],
    )
    await eventually(lambda: centre.gone("ls-1"), 20, str(agent.log))
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")
    assert 0 < centre.charged_ns("ls-1") == ended.ran_ns
    assert await logs(centre, "ls-1") == b"hello projects/demo/jobs/j-ls-1 0\n"
    listed = await centre.files().ListArtefacts(files_pb2.ListArtefactsRequest(lease="ls-1"))
    assert [one.path for one in listed.artefacts] == ["out/answer"]
    request = files_pb2.ReadArtefactRequest(lease="ls-1", path="out/answer")
    content = [piece async for piece in centre.files().ReadArtefact(request)]
    assert content[0].content == b"42\n"
    centre.forget("ls-1")
    await eventually(lambda: not centre.syncs[-1].leases)
    assert not (agent.state / "leases" / "ls-1").exists()


async def test_only_listed_artefacts_of_own_leases_are_read(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["echo 1 > a"], outputs=["a"])
    await eventually(lambda: centre.gone("ls-1"), 20)
    for path in ("../artefacts.json", "/etc/passwd", "out/../../log", "nothing"):
        request = files_pb2.ReadArtefactRequest(lease="ls-1", path=path)
        with pytest.raises(grpc.aio.AioRpcError) as trouble:
            _ = [piece async for piece in centre.files().ReadArtefact(request)]
        assert fault_from_error(trouble.value).reason == "ARTEFACT_NOT_FOUND", path
    for lease in ("ls-9", "../kept", ".", "a/b"):
        with pytest.raises(grpc.aio.AioRpcError) as trouble:
            await logs(centre, lease)
        assert fault_from_error(trouble.value).reason == "LEASE_NOT_HERE", lease


async def test_logs_are_followed_to_the_end_and_resumed(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["for i in 1 2 3 4; do echo line $i; sleep 0.2; done"])
    await eventually(lambda: centre.seen("ls-1"), 10)
    whole = b"".join(b"line %d\n" % i for i in (1, 2, 3, 4))
    assert await logs(centre, "ls-1", follow=True) == whole
    assert await logs(centre, "ls-1", follow=True, offset=7) == whole[7:]


async def test_bundle_files_reach_the_task(centre: Centre, agent: Agent) -> None:
    digest = centre.bundle(tar(("a/data", b"x" * 500_000), ("run.sh", b"wc -c < a/data\n")))
    centre.want("ls-1", ["sh run.sh"], bundle_digest=digest)
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert await logs(centre, "ls-1") == b"500000\n"


async def test_a_bundle_that_leads_out_or_is_missing_is_refused(
    centre: Centre, agent: Agent
) -> None:
    digests = [centre.bundle(tar((name, b"x"))) for name in ("../escape", "/tmp/gl-escape")]
    words = ["leads out of the working folder"] * 2 + ["digest: No such bundle."]
    for at, digest in enumerate([*digests, "sha256:" + "0" * 64]):
        lease = f"ls-{at}"
        centre.want(lease, ["true"], bundle_digest=digest)
        await eventually(lambda: centre.gone(lease), 20)  # noqa: B023 - waited for here
        ended = centre.exit(lease)
        assert ended is not None
        assert ended.reason == "START_FAILED"
        assert words[at] in ended.message
        assert centre.charged_ns(lease) == 0


async def test_a_stop_gives_its_notice(centre: Centre, agent: Agent) -> None:
    listens = "trap 'echo told; exit 3' TERM; echo listening; while true; do sleep 0.05; done"
    centre.want("ls-1", [listens])
    await eventually(lambda: centre.running("ls-1"), 20)
    await _said(agent, "ls-1", b"listening")
    centre.end("ls-1", notice_ms=5000)
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (3, "STOPPED")


async def _said(agent: Agent, lease: str, text: bytes) -> None:
    log = agent.state / "leases" / lease / "log"
    await eventually(lambda: log.exists() and text in log.read_bytes(), 10)


async def test_a_refused_renewal_is_told_and_ends_the_task(centre: Centre, agent: Agent) -> None:
    centre.grant_ms = 2000
    centre.want(
        "ls-1", ["trap '' TERM; while true; do cat /run/gridlease/* 2>&1 || true; sleep 0.1; done"]
    )
    await eventually(lambda: centre.running("ls-1"), 20)
    centre.refused["ls-1"] = ("BUDGET_EXHAUSTED", 1000)
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (137, "BUDGET_EXHAUSTED")
    assert b'"reason": "BUDGET_EXHAUSTED"' in await logs(centre, "ls-1")
    assert centre.charged_ns("ls-1") == ended.ran_ns


async def test_a_refused_first_grant_never_starts(centre: Centre, agent: Agent) -> None:
    centre.refused["ls-1"] = ("BUDGET_EXHAUSTED", 0)
    centre.want("ls-1", ["true"])
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.reason, ended.ran_ns, centre.charged_ns("ls-1")) == ("BUDGET_EXHAUSTED", 0, 0)


async def test_the_longest_duration_ends_a_task(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["sleep 60"], max_duration_ms=700, notice_ms=500)
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert ended.reason == "MAX_DURATION"
    assert 0.7e9 <= ended.ran_ns <= 2.5e9


async def test_an_older_desired_set_changes_nothing(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["sleep 4"])
    await eventually(lambda: centre.running("ls-1"), 20)
    centre.older = True
    before = len(centre.syncs)
    await eventually(lambda: len(centre.syncs) > before + 3, 10)
    assert centre.running("ls-1")
    centre.older = False
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert centre.exit("ls-1").reason == "EXITED"  # type: ignore[union-attr] # it ended


async def test_silence_of_billing_ends_the_task_at_its_deadline(
    centre: Centre, agent: Agent
) -> None:
    centre.grant_ms = 3000
    centre.want("ls-1", ["trap '' TERM; while true; do sleep 0.05; done"])
    await eventually(lambda: centre.running("ls-1"), 20)
    centre.silent = True
    await eventually(lambda: centre.exit("ls-1"), 10)
    late_s = time.monotonic() - (centre.granted_at["ls-1"] + 3.0)
    assert -1.0 < late_s < 1.0
    centre.silent = False
    await eventually(lambda: centre.gone("ls-1"), 20)
    assert centre.exit("ls-1").reason == "DEADLINE"  # type: ignore[union-attr] # it ended


async def test_renewals_carry_a_task_over_many_grants(centre: Centre, agent: Agent) -> None:
    centre.grant_ms = 1000
    centre.want("ls-1", ["sleep 3"])
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (0, "EXITED")


async def test_several_tasks_run_side_by_side(centre: Centre, agent: Agent) -> None:
    names = [f"ls-{n}" for n in range(4)]
    for name in names:
        centre.want(name, ["id -u > /dev/null; echo done > out"], outputs=["out"])
    await asyncio.gather(*(eventually(lambda n=name: centre.gone(n), 30) for name in names))
    assert all(centre.exit(name).exit_code == 0 for name in names)  # type: ignore[union-attr] # gone


async def test_the_inventory_says_what_is_lent(centre: Centre, agent: Agent) -> None:
    first = centre.inventories[0]
    assert first.cpu_chip in ("cpu-x86-64", "cpu-aarch64")
    assert first.cpu_milli >= 1000
    assert first.memory_bytes > 0
    assert first.disk_bytes > 0
    assert first.sandbox_runtime in ("crun", "bubblewrap")
    assert not first.emulated


async def test_an_unknown_runtime_is_told(centre: Centre, agent: Agent) -> None:
    centre.want("ls-1", ["true"], runtime="nothing")
    await eventually(lambda: centre.gone("ls-1"), 20)
    ended = centre.exit("ls-1")
    assert ended is not None
    assert ended.reason == "START_FAILED"
    assert "'nothing'" in ended.message


async def test_a_started_agent_is_light(centre: Centre, agent: Agent) -> None:
    assert agent.process is not None
    maps = (agent.proc / "maps").read_text()
    for name in ("asyncpg", "numpy", "pydantic", "protovalidate"):
        assert f"/{name}/" not in maps
    status = (agent.proc / "status").read_text()
    rss_kib = int(status.split("VmRSS:")[1].split()[0])
    assert rss_kib < 80 * 1024, rss_kib
    assert json.loads(agent.log.read_text().splitlines()[-1])["service"] == "agent"
