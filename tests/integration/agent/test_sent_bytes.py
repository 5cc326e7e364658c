"""Bytes that a task sends reach billing as a meter, the last of them after its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_agent.network.fabric import namespaces
from gridlease_agent.network.tasks import TaskNetworks
from gridlease_testkit.waiting import eventually

from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre

pytestmark = [
    pytest.mark.root,
]
_HEADERS = 14 + 20 + 8
_SENDS = "for at in 1 2 3 4 5; do echo hello > /dev/udp/100.64.0.0/9; done"


@pytest.fixture
def swept(agent: Agent) -> Iterator[None]:
    yield
    agent.stop()
    TaskNetworks(agent.state).close()


def _egress(centre: Centre, lease: str) -> list[int]:
    return [
        counter.cumulative
        for request in centre.settles
        for report in request.reports
        if report.lease == lease
        for counter in report.counters
        if counter.meter == "egress"
    ]


@pytest.mark.usefixtures("swept")
async def test_what_a_task_sent_is_settled_and_its_network_removed(
    centre: Centre, agent: Agent
) -> None:
    before = set(namespaces())
    spec = centre.want("ls-1", [_SENDS])
    spec.network.egress = job_pb2.EGRESS_PEERS
    centre.want("ls-2", [_SENDS + " 2>/dev/null || true"])  # no network: nothing to count
    await eventually(lambda: centre.gone("ls-1") and centre.gone("ls-2"), 30)
    assert _egress(centre, "ls-1")[-1] == 5 * (len("hello\n") + _HEADERS)
    assert _egress(centre, "ls-2") == []
    assert all(name.endswith("-f") for name in set(namespaces()) - before)
