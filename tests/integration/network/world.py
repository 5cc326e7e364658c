"""A data centre of namespaces: tasks, the fabric, two paths, and a server at their far end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from gridlease_agent.domain.traffic import Traffic, Uplink
from gridlease_agent.network.fabric import Fabric

SERVER = "198.18.0.1"  # of the range for benchmarks, RFC 2544


def ip(*words: str) -> None:
    """Run ``ip``; what fails is told."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@dataclass
class Town:
    """The namespaces' names and the fabric in the midst of them."""

    name: str
    fabric: Fabric
    server: str
    tasks: dict[str, str] = field(default_factory=dict)

    def task(self, traffic: Traffic) -> str:
        """A new task's namespace, admitted to the fabric."""
        namespace = f"{self.name}-{traffic.slot}"
        ip("netns", "add", namespace)
        self.tasks[traffic.lease_id] = namespace
        self.fabric.admit(traffic, namespace)
        return namespace


@contextlib.contextmanager
def town(rate_mbps: int = 200) -> Iterator[Town]:
    """Two paths of so many Mbit/s from the fabric to the server; gone at the end."""
    name = f"gl{os.getpid()}"
    fabric_ns, server = f"{name}-fabric", f"{name}-server"
    made: Town | None = None
    try:
        for namespace in (fabric_ns, server):
            ip("netns", "add", namespace)
        for number in (1, 2):
            near, far = f"u{number}", f"s{number}"
            ip("-n", fabric_ns, "link", "add", near, "type", "veth", "peer", "name", far)
            ip("-n", fabric_ns, "link", "set", far, "netns", server)
            ip("-n", fabric_ns, "addr", "add", f"198.19.{number}.0/31", "dev", near)
            ip("-n", server, "addr", "add", f"198.19.{number}.1/31", "dev", far)
            ip("-n", fabric_ns, "link", "set", near, "up")
            ip("-n", server, "link", "set", far, "up")
        sysctl = ["sysctl", "-qw", "net.ipv4.conf.all.ignore_routes_with_linkdown=1"]
        ip("netns", "exec", server, *sysctl)
        ip("-n", server, "link", "set", "lo", "up")
        ip("-n", server, "addr", "add", f"{SERVER}/32", "dev", "lo")
        ip("-n", server, "route", "add", "100.64.0.0/10", "nexthop", "via", "198.19.1.0",
           "nexthop", "via", "198.19.2.0")  # fmt: skip
        uplinks = (
            Uplink("u1", rate_mbps, "198.19.1.1"),
            Uplink("u2", rate_mbps, "198.19.2.1"),
        )
        made = Town(name, Fabric(fabric_ns, uplinks), server)
        made.fabric.open()
        yield made
    finally:
        for namespace in [fabric_ns, server, *(made.tasks.values() if made else ())]:
            subprocess.run(
                ["ip", "netns", "del", namespace], check=False, capture_output=True, timeout=10
            )
