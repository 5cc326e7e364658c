"""The first start makes what is needed to begin, once."""

import json
import stat

import asyncpg
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_gateway.bootstrap import gateway, new_keys
from gridlease_testkit.waiting import eventually


async def test_the_first_start_makes_keys_and_credit(world):
    path = world.settings.client_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(world.keys) == {"endpoint", "operator_key", "tenant_key", "tenant", "project"}
    await eventually(lambda: world.billing.credits)
    assert world.billing.credits == {"first-start-credit": ("tenants/demo", 100_000_000_000)}
    caller = await world.stub("AccessService").GetCaller(pb.GetCallerRequest())
    assert (caller.tenant, caller.project, caller.role) == (
        "tenants/demo", "projects/demo", pb.ROLE_TENANT,
    )  # fmt: skip


async def test_no_usable_secret_lies_in_the_database(world, database):
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT k::text AS line FROM gateway.api_key k")
    await connection.close()
    dump = "\n".join(row["line"] for row in rows)
    assert len(rows) == 2
    assert world.keys["tenant_key"].rsplit("_", 1)[1] not in dump


async def test_a_second_start_changes_nothing_and_keeps_the_endpoint_current(world):
    before = json.loads(world.settings.client_file.read_text())
    async with gateway(world.settings) as second:
        after = json.loads(world.settings.client_file.read_text())
        assert after["endpoint"] == f"127.0.0.1:{second.port}"
        assert {**after, "endpoint": ""} == {**before, "endpoint": ""}
    assert len(world.billing.credits) <= 1


async def test_a_start_that_crashed_before_naming_its_file_is_finished(world):
    path = world.settings.client_file
    path.rename(path.with_name("client.json.k-1.part"))
    async with gateway(world.settings):
        again = json.loads(path.read_text())
    assert again["operator_key"] == world.keys["operator_key"]
    assert not list(path.parent.glob("*.part"))


async def test_who_lost_the_client_file_makes_new_keys(world):
    world.settings.client_file.unlink()
    await new_keys(world.settings)
    keys = json.loads(world.settings.client_file.read_text())
    assert keys["operator_key"] != world.keys["operator_key"]
    caller = await world.stub("AccessService", keys["operator_key"]).GetCaller(
        pb.GetCallerRequest()
    )
    assert caller.role == pb.ROLE_OPERATOR
