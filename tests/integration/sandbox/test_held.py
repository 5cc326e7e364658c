"""Sandboxes made ahead: they wait, one lease takes each, and it is as any other from then on."""

import os
import time
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.runtimes import secrets
from gridlease_agent.runtimes.held import HeldSandboxes
from gridlease_agent.runtimes.spec import SandboxSpec, shell_argv
from gridlease_agent.sandbox import Deadline
from gridlease_kernel.faults import Fault

from .conftest import wait_for


@pytest.fixture
def held(crun_bench):
    if not crun_bench.sandboxes.keeper.holds:
        pytest.skip("only the static keeper holds sandboxes; this host has no C compiler")
    return HeldSandboxes(crun_bench.sandboxes)


def _warm(held, bench, modules=(), **parts):
    warm_id = f"warm-{os.getpid()}-{time.monotonic_ns()}"
    held.make(warm_id, SandboxSpec(warm_id, ("true",), **parts), Deadline.after(60_000, 0), modules)
    wait_for(lambda: held.warm(warm_id))
    assert not (bench.folder(warm_id) / "started.json").exists()
    return warm_id


def _release(held, warm_id, commands, **parts):
    lease = warm_id.replace("warm-", "ls-")
    spec = SandboxSpec(lease, shell_argv(commands, "/bin/sh"), **parts)
    held.release(warm_id, spec, tuple(commands), Deadline.after(60_000, 0))
    return lease


def test_a_created_one_waits_and_becomes_the_leases(held, crun_bench):
    warm_id = _warm(held, crun_bench)
    lease = _release(
        held, warm_id, ["echo it is $WHO; cat /run/secrets/KEY; pwd", "exit 3"],
        env=(("WHO", "me; exit 9"),), secrets=(("KEY", "hidden\n"),),
    )  # fmt: skip
    record = crun_bench.exited(lease).record
    said = crun_bench.log(lease)
    assert (record.exit_code, record.reason) == (3, "EXITED"), said
    assert said == "it is me; exit 9\nhidden\n/work\n"
    assert warm_id not in crun_bench.sandboxes.list()
    secrets.forget(crun_bench.folder(lease))


def test_a_frozen_one_thaws_with_its_modules_in_memory(held, crun_bench):
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the host has no Python of its own that a sandbox sees")
    warm_id = _warm(held, crun_bench, ("json", "decimal"))
    init = shim.read_json(str(crun_bench.folder(warm_id) / "held.json"))["init_pid"]
    code = "import sys,os; print('decimal' in sys.modules, os.environ['WHO']); sys.exit(4)"
    lease = _release(held, warm_id, [f'python3 -c "{code}"'], env=(("WHO", "me"),))
    record = crun_bench.exited(lease).record
    assert (record.exit_code, crun_bench.log(lease)) == (4, "True me\n")
    assert shim.start_ticks(init) == 0


def test_one_that_nobody_took_ends_at_its_deadline(held, crun_bench):
    warm_id = f"warm-{os.getpid()}-{time.monotonic_ns()}"
    held.make(warm_id, SandboxSpec(warm_id, ("true",)), Deadline.after(700, 0))
    record = crun_bench.exited(warm_id).record
    assert (record.reason, record.started) == ("DEADLINE", False)
    assert not held.warm(warm_id)
    with pytest.raises(Fault) as caught:
        _release(held, warm_id, ["true"])
    assert caught.value.reason == "NOT_WARM"


def test_nothing_of_a_task_is_held_before_there_is_one(held):
    for parts in ({"devices": ("0",)}, {"secrets": (("A", "b"),)}):
        with pytest.raises(Fault) as caught:
            held.make("warm-x", SandboxSpec("warm-x", ("true",), **parts), Deadline.after(1000, 0))
        assert caught.value.reason == "NOT_HOLDABLE"
