"""A sandbox in the network namespace that the node made for it, and the way back out of it.

Without ``SandboxSpec.network`` nothing changes: a namespace of its own with a loopback alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gridlease_agent.domain.task import Egress, NetworkClass, NetworkGrant
from gridlease_agent.runtimes.spec import Network, SandboxSpec

RDMA = "rdma"  # how ids of devices that do RDMA begin


def apply(config: dict[str, Any], spec: SandboxSpec) -> None:
    """Join the namespace in place of making one, and tell the task's libraries of it."""
    if spec.network is None or not spec.network.namespace:
        return
    for row in config["linux"]["namespaces"]:
        if row["type"] == "network":
            row["path"] = spec.network.namespace
    named = {line.partition("=")[0] for line in config["process"]["env"]}
    config["process"]["env"] += [
        f"{key}={value}" for key, value in environment(spec).items() if key not in named
    ]


def environment(spec: SandboxSpec) -> dict[str, str]:
    """Which interface collective libraries use.

    RDMA is a capability that is handed through with its devices: nothing here shapes or counts
    what goes over it.
    """
    found = {"NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
    rdma = [each for each in spec.devices if each.startswith(RDMA)]
    if rdma:
        return found | {"NCCL_IB_HCA": ",".join(each.rpartition(":")[2] for each in rdma)}
    return found | {"NCCL_IB_DISABLE": "1"}


def plan(spec: SandboxSpec) -> dict[str, Any]:
    """``link`` (the keeper takes it down before it kills) and ``network`` (for a new agent)."""
    if spec.network is None or not spec.network.namespace:
        return {}
    namespace, name = spec.network.link
    kept = dataclasses.asdict(spec.network)
    return {"link": f"{namespace}/{name}", "network": kept}


def read(kept: dict[str, Any]) -> Network:
    """What ``plan`` has written."""
    grant = dict(kept["grant"])
    grant["network_class"] = NetworkClass(grant["network_class"])
    grant["egress"] = Egress(grant["egress"])
    for name in ("path", "egress_to"):
        grant[name] = tuple(grant[name])
    return Network(**{**kept, "grant": NetworkGrant(**grant), "link": tuple(kept["link"])})
