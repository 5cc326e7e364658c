"""The command line and the SDK against a real door, as users run them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Fault
from gridlease_sdk import Client, SyncClient, jobfile
from gridlease_testkit.waiting import eventually

from tests.integration.gateway.commands import commands


def environ(world, **more):
    clean = {name: it for name, it in os.environ.items() if not name.startswith("GRIDLEASE_")}
    return {**clean, "GRIDLEASE_CLIENT_FILE": str(world.settings.client_file), **more}


async def cli(world, *arguments, cwd=None, fresh=False, **more):
    """Exit code, standard output and standard error of one command. ``fresh``: by a new Python."""
    cwd, env = cwd or world.settings.client_file.parent, environ(world, **more)
    if fresh:
        code, out, err = await asyncio.to_thread(_spawned, arguments, env, cwd)
    else:
        code, out, err = await asyncio.to_thread(commands().run, arguments, env, cwd, 40)
    assert b"Traceback" not in err, err.decode()
    return code, out.decode(), err.decode()


def _spawned(words, env, cwd):
    command = [sys.executable, "-m", "gridlease_cli", *words]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, timeout=40, check=False)
    return done.returncode, done.stdout, done.stderr


async def test_a_plan_says_when_and_at_what_price(world, tmp_path):
    (tmp_path / "job.yaml").write_text("commands: [x]\nnodes: 2\nresources: {gpu: A100}\n")
    code, out, _ = await cli(world, "plan", str(tmp_path / "job.yaml"), fresh=True)
    assert code == 0
    assert "It would wait: CHIP_BUSY" in out
    assert "earliest  not known" in out
    assert "What would change it: Wait." in out
    assert "A100-80GB  no   36.00 USD" in out
    [asked] = world.scheduler.submits
    assert (asked.spec.nodes.min, asked.spec.nodes.max) == (2, 2)
    code, out, _ = await cli(world, "plan", "--json", "--gpu", "L4:2", "--", "train")
    assert json.loads(out)["reason"]["code"] == "CHIP_BUSY"
    assert world.scheduler.submits[-1].spec.resources.accelerator.count.min == 2
    (tmp_path / "bad.yaml").write_text("commands: [x]\nspan: room\n")
    code, _, err = await cli(world, "plan", str(tmp_path / "bad.yaml"))
    assert code == 3
    assert "span" in err
    assert "rack" in err


async def test_an_operators_word_on_capacity(world):
    async def done(*words):
        code, out, err = await cli(world, *words)
        assert code == 0, err
        return out

    assert "limit" not in await done("quotas")
    await done("quotas", "set", "projects/demo", "--chip", "A100-80GB", "--limit", "2.5")
    assert "2.5" in await done("quotas")
    out = await done("sites", "set", "local", "--pue", "1.2", "--carbon", "400", "--price", "0.10")
    assert "1.2" in out
    assert "400 g" in out
    assert "local" in await done("sites")
    out = await done(
        "links", "set", "up-1", "racks/local/r1", "sites/local", "--capacity", "40Gbit",
        "--latency", "50us", "--kind", "roce", "--down",
    )  # fmt: skip
    assert ("40000 Mbit/s" in out, "down" in out) == (True, True)
    out = await done("links")
    assert "racks/local/r1" in out
    assert "taken away" in await done("links", "remove", "up-1")
    assert "weighs 3" in await done("shares", "set", "tenants/demo", "3")
    out = await done(
        "reservations", "create", "projects/demo", "A100-80GB", "2", "--for", "2d",
        "--begin", "2090-01-31T08:00Z",
    )  # fmt: skip
    name = out.split()[0]
    assert name in await done("reservations")
    assert "is given back" in await done("reservations", "cancel", name)
    assert "DRAINING" in await done("drain", "n1", "--notice", "2m", "--note", "memory")
    code, _, err = await cli(world, "reservations", "create", "projects/demo", "X", "1",
                             "--begin", "soon")  # fmt: skip
    assert code == 3
    assert "2027-01-31T08:00Z" in err
    code, _, err = await cli(world, "nodes", "stand", "none", "--rack", "r1")
    assert code == 4


async def test_a_tenants_day(world, tmp_path):
    code, out, _ = await cli(world, "submit", "--name", "hello", "--cpu", "0.5", "--", "echo", "hi")
    assert (code, out) == (0, "projects/demo/jobs/hello-0\n")
    name = out.strip()
    code, out, _ = await cli(world, "ps")
    assert "hello-0  PENDING" in out
    code, out, _ = await cli(world, "explain", "hello-0")
    assert "NO_SUCH_CHIP" in out
    assert "What would change it: Add one." in out
    code, out, _ = await cli(world, "offers")
    assert "A100-80GB" in out
    assert "emulated" in out
    code, out, _ = await cli(world, "quote", "--gpu", "A100:80GB:8", "--for", "2h")
    assert "8 x A100-80GB" in out
    assert "576.00 USD" in out
    assert "kWh an hour" in out
    assert "estimated at sites/local" in out
    code, out, _ = await cli(world, "cost", "hello-0")
    assert (code, "lasts     1m at most, by the job's budget" in out) == (0, True), out
    code, out, _ = await cli(world, "cost", "hello-0", "--json")
    assert json.loads(out)["charged_nano"] == "5"
    assert world.billing.reports.asked[-1].tenant == "tenants/demo"
    code, out, _ = await cli(world, "show", "hello-0")
    assert "cost      0.000000005 USD so far" in out
    world.agent.grow("ls-1", b"hi\n", end=True)
    world.agent.artefacts = {"out/model.bin": bytes(100)}
    world.scheduler.set(name, types.JOB_STATE_SUCCEEDED, lease="ls-1", node="nodes/n1")
    code, out, _ = await cli(world, "logs", "-f", "hello-0")
    assert out == "hi\n"
    code, out, _ = await cli(world, "artefacts", "hello-0", "--to", str(tmp_path))
    assert (tmp_path / "out" / "model.bin").read_bytes() == bytes(100)
    code, out, _ = await cli(world, "cost", "hello-0", "--watch")
    assert (code, out.count("lasts 1m at most")) == (0, 1), "it has ended"
    code, out, _ = await cli(world, "invoice", "hello-0", "--pdf", str(tmp_path / "i.pdf"))
    assert "GL-2026-000001" in out
    assert (tmp_path / "i.pdf").read_bytes() == b"%PDF-"
    code, out, _ = await cli(world, "usage", "-o", "json")
    assert json.loads(out)[0]["amount_nano"] == "1500000"
    code, out, _ = await cli(world, "show", name, "-o", "yaml")
    assert "state: JOB_STATE_SUCCEEDED" in out


async def test_an_operators_day(world):
    code, out, _ = await cli(world, "nodes")
    assert code == 0
    assert "emulated" in out
    code, out, _ = await cli(world, "nodes", "add", "edge-1")
    endpoint = world.keys["endpoint"]
    assert out == f"./dev agent --join {endpoint} --token {'t' * 40}\n"
    code, out, _ = await cli(world, "nodes", "cordon", "n1")
    assert out == "nodes/n1 CORDONED\n"
    code, out, _ = await cli(world, "nodes", "remove", "n1")
    assert out.startswith("nodes/n1 is cut off")
    assert (await cli(world, "tenants", "create", "acme"))[0] == 0
    code, out, _ = await cli(world, "credit", "acme", "12.50", "-o", "json")
    assert json.loads(out)["available_nano"] == "12500000000"
    code, out, _ = await cli(world, "prices", "set", "A100-80GB", "3.25", "--tier", "spot")
    assert "3.25 USD" in out
    code, out, _ = await cli(world, "prices", "list", "--as-of", "2026-12-01", "-o", "json")
    assert (code, json.loads(out)[0]["chip"]) == (0, "A100-80GB")
    code, out, _ = await cli(world, "priorities", "set", "0=0.8", "50=1.25", "-o", "json")
    assert [it["permille"] for it in json.loads(out)["bands"]] == [800, 1250]
    assert (await cli(world, "priorities", "set", "0=0.8001"))[0] != 0
    code, out, _ = await cli(world, "keys", "create", "--name", "ci", "-o", "json")
    made = json.loads(out)
    assert (await cli(world, "whoami", "--api-key", made["secret"]))[0] == 0
    assert (await cli(world, "keys", "revoke", made["api_key"]["name"]))[0] == 0
    code, _, err = await cli(world, "whoami", "--api-key", made["secret"])
    assert code == 5
    assert "revoked" in err


async def test_waiting_ends_with_the_jobs_own_code(world):
    running = asyncio.create_task(cli(world, "submit", "--follow", "--", "false"))
    await eventually(lambda: world.scheduler.jobs, 20)
    [name] = world.scheduler.jobs
    world.agent.grow("ls-1", b"boom\n", end=True)
    world.scheduler.set(name, types.JOB_STATE_RUNNING, lease="ls-1", node="nodes/n1")
    world.scheduler.set(name, types.JOB_STATE_FAILED)
    code, out, err = await running
    assert code == 10
    assert out.startswith("boom\n")
    assert "FAILED" in out
    assert err == f"submitted {name}\n"


FILES = {
    "unknown-key.yaml": b"comands: [x]",
    "broken.yaml": b"commands: [",
    "latin1.yaml": b"commands: [caf\xe9]",
    "huge.yaml": b"#" * (10 << 20),
    "negative.yaml": b"commands: [x]\nresources: {memory: -1GB}",
    "absurd.yaml": b"commands: [x]\nresources: {cpu: 999999}",
    "name.yaml": b"commands: [x]\nname: Not A Name",
    "output.yaml": b"commands: [x]\noutputs: [/etc/passwd]",
    "env.yaml": b"commands: [x]\nenv: {1A: x}",
    "budget.yaml": b"commands: [x]\nbudget: 0.000001\nresources: {gpu: A100}",
    "long.yaml": b"commands: [x]\nmax_duration: 9999d",
}
NOBODY = "gl_k-none_" + "0" * 64
BAD = [
    (["submit", "unknown-key.yaml"], 3, "UNKNOWN_KEY", "comands"),
    (["submit", "broken.yaml"], 3, "BROKEN_YAML", "file:1"),
    (["submit", "latin1.yaml"], 3, "NOT_UTF8", "file"),
    (["submit", "huge.yaml"], 7, "FILE_TOO_LARGE", "file"),
    (["submit", "none.yaml"], 4, "FILE_NOT_FOUND", "file"),
    (["submit", "negative.yaml"], 3, "BAD_SIZE", "resources.memory"),
    (["submit", "absurd.yaml"], 3, "RULE_VIOLATED", "spec.resources"),
    (["submit", "name.yaml"], 3, "RULE_VIOLATED", "spec.display_name"),
    (["submit", "output.yaml"], 3, "RULE_VIOLATED", "spec.outputs[0]"),
    (["submit", "env.yaml"], 3, "RULE_VIOLATED", "spec.env"),
    (["submit", "budget.yaml"], 3, "BUDGET_TOO_SMALL", "spec.budget_nano"),
    (["submit", "long.yaml"], 3, "RULE_VIOLATED", "spec.max_duration_ms"),
    (["submit", "--gpu", "A100:0", "--", "x"], 3, "BAD_GPU_COUNT", "resources.gpu"),
    (["submit", "--workdir", "/proc/self/none", "--", "x"], 4, "FILE_NOT_FOUND", "workdir"),
    (["submit"], 3, "NOTHING_TO_RUN", "file"),
    (["show", "projects/other/jobs/x"], 4, "JOB_NOT_FOUND", "name"),
    (["logs", "nothing"], 4, "JOB_NOT_FOUND", "name"),
    (["quote", "--gpu", "NOPE9000"], 4, "NO_OFFER", "spec.resources"),
    (["invoice", "invoices/none"], 4, "INVOICE_NOT_FOUND", "name"),
    (["ps", "--api-key", NOBODY], 5, "KEY_UNKNOWN", ""),
    (["ps", "--api-key", "rubbish"], 5, "KEY_MALFORMED", ""),
    (["ps", "--endpoint", "nowhere"], 3, "ENDPOINT_MALFORMED", "endpoint"),
    (["credit", "nobody", "5"], 4, "TENANT_NOT_FOUND", "tenant"),
    (["credit", "demo", "1e9"], 3, "BAD_MONEY", "amount"),
    (["tenants", "create", "demo"], 6, "TENANT_EXISTS", "tenant_id"),
    (["keys", "revoke", "k-none"], 4, "KEY_NOT_FOUND", "name"),
    (["keys", "create", "--project", "projects/other"], 4, "PROJECT_NOT_FOUND", "project"),
]


async def test_bad_input_is_a_typed_error_and_nothing_is_half_done(world, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    answers = await asyncio.gather(*(_error_of(world, tmp_path, it[0]) for it in BAD))
    for (line, code, reason, field), (got_code, error) in zip(BAD, answers, strict=True):
        assert (got_code, error["reason"]) == (code, reason), (line, error)
        assert error["field"].startswith(field), (line, error)
        assert error["remedy"], line
    assert not world.scheduler.submits
    assert not [it for it in world.settings.bundles.rglob("*") if it.is_file()]


_TWO = asyncio.Semaphore(2)


async def _error_of(world, cwd, line):
    async with _TWO:
        code, out, err = await cli(world, "-o", "json", *line, cwd=cwd)
    assert out == "", (line, out)
    assert err.startswith('{"error": '), (line, err)
    return code, json.loads(err)["error"]


async def test_a_replayed_request_id_with_another_body(world):
    for line, code in ((["--", "a"], 0), (["--", "a"], 0), (["--", "b"], 6)):
        got, _, err = await cli(world, "submit", "--request-id", "r-7", *line)
        assert got == code, err
    assert len(world.scheduler.jobs) == 1


async def test_the_sdk_submits_files_and_follows(world, tmp_path):
    (tmp_path / "train.py").write_text("print('x')\n")
    draft = jobfile.read({"commands": ["python train.py"], "workdir": "."}, tmp_path)
    async with Client.from_env(environ(world)) as client:
        job = await client.submit(draft)
        digest = job.spec.bundle_digest
        assert (world.settings.bundles / digest.removeprefix("sha256:")).exists()
        world.agent.grow("ls-1", b"x\n", end=True)
        world.scheduler.set(job.name, types.JOB_STATE_RUNNING, lease="ls-1", node="nodes/n1")
        waiting = asyncio.create_task(client.wait(job.name))
        world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED)
        assert (await waiting).state == types.JOB_STATE_SUCCEEDED
        assert b"".join([it async for it in client.logs(job.name, follow=True)]) == b"x\n"
        with pytest.raises(Fault) as caught:
            await client.get_job("projects/demo/jobs/none")
        assert caught.value.reason == "JOB_NOT_FOUND"


async def test_the_sync_client_does_the_same(world):
    def day():
        with SyncClient.from_env(environ(world)) as client:
            job = client.submit(jobfile.read({"commands": ["x"]}))
            client.cancel(job.name)
            return [it.state for it in client.watch(job.name)], client.balance().tenant

    states, tenant = await asyncio.to_thread(day)
    assert states == [types.JOB_STATE_CANCELLED]
    assert tenant == "tenants/demo"


async def test_a_client_outlives_a_restart_of_the_door(world, tmp_path):
    """The port is closed and opened again in the middle of a watch: nothing is lost or doubled."""
    import dataclasses

    from gridlease_gateway.bootstrap import gateway
    from gridlease_testkit.ports import free_port

    settings = dataclasses.replace(world.settings, gateway_listen=f"127.0.0.1:{free_port()}")
    async with Client.connect(settings.gateway_listen, world.keys["tenant_key"]) as client:
        async with gateway(settings):
            job = await client.submit(jobfile.read({"commands": ["x"]}))
            jobs = client.watch(job.name)
            assert (await anext(jobs)).state == types.JOB_STATE_PENDING
        following = asyncio.ensure_future(anext(jobs))
        world.scheduler.set(job.name, types.JOB_STATE_RUNNING)
        async with gateway(settings):
            assert (await asyncio.wait_for(following, 20)).state == types.JOB_STATE_RUNNING
            world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED)
            assert [it.state async for it in jobs] == [types.JOB_STATE_SUCCEEDED]


def test_the_process_names_a_taken_port(tmp_path):
    """One sentence, no traceback, exit code 1."""
    import socket
    import subprocess

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "gridlease_gateway"],
            env={
                "PATH": os.environ["PATH"],
                "GRIDLEASE_NATS_URL": "nats://127.0.0.1:1",
                "GRIDLEASE_POSTGRES_DSN": "postgresql://nobody@/none?host=/nonexistent",
                "GRIDLEASE_GATEWAY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
                "GRIDLEASE_BUNDLES": str(Path(tmp_path) / "bundles"),
            },
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["reason"] == "PORT_TAKEN"
    assert "Traceback" not in done.stderr
