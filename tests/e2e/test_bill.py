"""A real agent signs, billing bills, and the verifier agrees, through the door and the CLI."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_testkit.waiting import eventually

from tests.e2e.world import ENDED, World, draft, state_is


@pytest.mark.slow  # a platform comes up: some 10 s
async def test_a_real_bill_is_agreed_with(world: World, tmp_path) -> None:
    async with world.tenant() as tenant:
        name = (await tenant.submit(draft("sleep 2; echo done"))).name

        async def costs() -> bool:
            cost = await tenant.get_job_cost(name)
            return cost.rate_nano_per_hour > 0 and cost.lasts_by == "BALANCE"

        await eventually(costs, 20.0, "it costs something an hour")
        job = await state_is(tenant, name, *ENDED)
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED

        async def billed() -> bool:
            lines = await tenant.list_usage(job=name)
            return bool(lines) and all(line.lease_state == "FINAL" for line in lines)

        await eventually(billed, 40.0, "the usage is final")
        cost, lines = await tenant.get_job_cost(name), await tenant.list_usage(job=name)
        assert (cost.held_nano, cost.rate_nano_per_hour, cost.ended_count) == (0, 0, 1)
        assert cost.charged_nano == sum(line.amount_nano for line in lines) > 0
        assert [line.use.basis for line in lines if line.meter == "run"] == ["ESTIMATED"]
        invoice = await tenant.create_invoice(job=name)
    environ = {**os.environ, "GRIDLEASE_CLIENT_FILE": str(world.state / "client.json")}

    async def cli(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "gridlease_cli", *words]
        return await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True)

    assert [it.meter for it in invoice.lines if it.kind == "INFORMATION"] == ["site_energy"]
    quoted = await cli("quote", "--cpu", "1")
    assert b"kWh an hour" in quoted.stdout
    assert b"so far" in (await cli("cost", name)).stdout
    evidence = tmp_path / "evidence.json"
    done = await cli("verify-bill", invoice.number, "--save", str(evidence), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["equal"], told["findings"]) == (0, True, [])
    assert told["reports"] >= 1
    offline = await cli("verify-bill", "--evidence", str(evidence))
    assert b"equal" in offline.stdout
    forged = evidence.read_text().replace("counter 1 run ", "counter 1 run 9")
    evidence.write_text(forged)
    caught = await cli("verify-bill", "--evidence", str(evidence))
    assert caught.returncode == 1
    assert b"does not hold" in caught.stdout
    for kind in ("text", "json", "csv", "focus", "pdf"):
        path = tmp_path / f"bill.{kind}"
        wrote = await cli("invoices", "download", invoice.name, "--as", kind, "--to", str(path))
        assert wrote.returncode == 0, wrote.stderr
        assert path.stat().st_size > 100
    drilled = await cli("invoices", "lines", invoice.name)
    assert b"report signed by U" in drilled.stdout
    assert (await cli("taxes", "rates")).returncode == 0
    assert b"GL" in (await cli("taxes", "entities")).stdout
