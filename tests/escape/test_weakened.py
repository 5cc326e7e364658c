"""The control: the same table against a sandbox that was weakened on purpose must find leaks."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import Mount, SandboxSpec

from tests.escape.world import World, leaks, trapped, world

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
]  # fmt: skip


def _weakened(oci: dict[str, Any]) -> None:
    """No filter, capabilities kept, the host's processes in sight; ids alone are still mapped.

    They keep the host whole, and with it its devices: those probes have nothing to find.
    """
    oci["annotations"].clear()
    oci["linux"].pop("seccomp", None)
    oci["linux"]["maskedPaths"] = []
    oci["linux"]["readonlyPaths"] = []
    spaces = oci["linux"]["namespaces"]
    oci["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    process = oci["process"]
    process["noNewPrivileges"] = False
    process["user"] = {"uid": 0, "gid": 0, "umask": 0o022}
    for kind in process["capabilities"]:
        process["capabilities"][kind] = CAPABILITIES
    # A fresh proc would be that of a pid namespace of its own.
    for row in oci["mounts"]:
        if row["destination"] == "/proc":
            row |= {"type": "bind", "source": "/proc", "options": ["rbind", "rprivate"]}


def _weaken(place: World) -> None:
    render = place.sandboxes._render

    def weak(spec: SandboxSpec, folder: Path) -> dict[str, Any]:
        plan = render(spec, folder)
        _weakened(plan["oci"])
        return plan

    place.sandboxes._render = weak  # type: ignore[method-assign]  # what the test is about


@pytest.mark.root
def test_a_weak_sandbox_is_found_out(crun_runtime: Runtime, state_folder: Path) -> None:
    with world(state_folder, crun_runtime) as place:
        _weaken(place)
        mounts = [trapped(state_folder / "data", place.sandboxes.folder(".."))]
        mounts += [Mount(path, path) for path in ("/var", "/home", "/srv", "/boot")]
        found = place.attack(mounts)
    assert all(outcome != "never tried" for _probe, outcome in found)
    leaked = collections.Counter(line.split("/")[0] for line in leaks(found, "crun"))
    assert sum(leaked.values()) >= 100, leaked
    for kind in ("syscalls", "identity", "network", "files", "proc", "processes"):
        assert leaked[kind] >= 4, leaked
