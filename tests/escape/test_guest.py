"""The same table in a virtual machine of its own, on a stock kernel with cgroup v2 alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from gridlease_agent.runtimes.choose import Runtime

from tests.escape.guest import machine
from tests.escape.probes import load
from tests.escape.world import leaks


@pytest.mark.slow
@pytest.mark.root
def test_nothing_leaks_on_cgroup_v2(crun_runtime: Runtime, tmp_path: Path) -> None:
    told = machine.boot(tmp_path)
    assert told["cgroups"] == "v2"
    outcomes = dict(told["found"])
    probes = load("x86_64", told["facts"])
    found = [(probe, outcomes.get(probe.name, "never tried")) for probe in probes]
    leaked = leaks(found, "crun")
    assert not leaked, "\n".join(leaked)
    assert len(outcomes) == len(probes) >= 380
    assert told["left"] == []
    assert told["dumps"] == [], "a task's memory reached the host's crash handler"
    assert told["dumps_at_all"] == 1, "the handler works: the control"
