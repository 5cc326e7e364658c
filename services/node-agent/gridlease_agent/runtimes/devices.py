"""A lease's accelerators in its sandbox: the edits of their CDI documents, and nothing beside them.

The documents are made anew for every start: a driver that was loaded again has other numbers. A
sandbox has a user namespace, in which no node can be made; each is bound from the host, and the
device rule beside it decides whether it opens. Where a node is open to a group alone, that one
group of the host is mapped for this sandbox, so that its task is in it and in no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Precondition

from gridlease_agent.devices import cdi
from gridlease_agent.devices.family import Family
from gridlease_agent.devices.place import Place
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.runtimes.spec import STAGE_PATH, UID_RANGE, SandboxSpec


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """What this host can hand over. ``hooks``: SHA-256 digests of vendor programs that may run."""

    families: tuple[Family, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    hooks: frozenset[str] = frozenset()
    root: Path = Path("/")

    def edits(self, ids: tuple[str, ...]) -> list[dict[str, Any]]:
        """The CDI edits of these devices.

        Raises:
            Precondition: NO_SUCH_DEVICE.
        """
        chosen = [device for device in self.devices if device.id in ids]
        known = {device.id: cdi.qualified(device) for device in chosen}
        names = [known.get(one, one) for one in ids]
        return cdi.edits_of(names, cdi.documents(self.families, chosen, self.root))


NO_DEVICES = DeviceTable()


def table_of(devices: tuple[DeviceFacts, ...], hooks: str, place: Place) -> DeviceTable:
    """Those found at ``place``. ``hooks``: digests with commas between.

    Raises:
        Invalid: BAD_FAMILY.
    """
    digests = frozenset(each.strip().lower() for each in hooks.split(",") if each.strip())
    return DeviceTable(place.known(), devices, digests, place.root)


def given(plan: Mapping[str, Any], spec: SandboxSpec, table: DeviceTable) -> dict[str, Any]:
    """crun's launch plan with the devices of ``spec``.

    Raises:
        Precondition: NO_SUCH_DEVICE, DEVICE_NODE_INVALID, DEVICE_NODE_CLOSED, HOOK_NOT_ALLOWED.
    """
    if not spec.devices:
        return dict(plan)
    edits = table.edits(spec.devices)
    if not spec.root:
        edits = [_not_shown_already(edit) for edit in edits]
    before = len(plan["oci"]["mounts"])
    config = cdi.merged(plan["oci"], edits, table.hooks)
    config["linux"] = {key: part for key, part in config["linux"].items() if key != "devices"}
    nodes = {node["path"]: node for edit in edits for node in edit.get("deviceNodes", ())}
    mounts, binds = _staged(config["mounts"], before)
    config["mounts"] = [*mounts, *(_bound(node) for node in nodes.values())]
    config = _in_groups(config, sorted({gid for x in edits for gid in x.get("additionalGids", ())}))
    return dict(plan) | {"oci": config, "binds": [*plan["binds"], *binds]}


def _staged(
    mounts: list[dict[str, Any]], before: int
) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Files and folders go by the keeper's stage, as all that a sandbox is shown."""
    own, binds = mounts[:before], []
    for place, mount in enumerate(mounts[before:]):
        binds.append([mount["source"], f"d/{place}", True])
        own.append(mount | {"source": f"{STAGE_PATH}/d/{place}"})
    return own, binds


def _not_shown_already(edit: Mapping[str, Any]) -> dict[str, Any]:
    """Without the mounts of what the host's own /usr, which the sandbox sees, shows anyway."""
    mounts = [
        mount
        for mount in edit.get("mounts", ())
        if mount["hostPath"] != mount["containerPath"] or not mount["hostPath"].startswith("/usr/")
    ]
    return dict(edit) | {"mounts": mounts}


def _bound(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "destination": node["path"],
        "source": node.get("hostPath", node["path"]),
        "type": "bind",
        "options": ["bind", "rprivate", "nosuid", "noexec", "rw"],
    }


def _in_groups(config: dict[str, Any], gids: list[int]) -> dict[str, Any]:
    """The task in these groups of the host, each mapped beyond the lease's own range."""
    if not gids:
        return config
    inside = [UID_RANGE + place for place in range(len(gids))]
    linux, process = dict(config["linux"]), dict(config["process"])
    linux["gidMappings"] = [
        *linux["gidMappings"],
        *(
            {"containerID": own, "hostID": gid, "size": 1}
            for own, gid in zip(inside, gids, strict=True)
        ),
    ]
    process["user"] = process["user"] | {"additionalGids": inside}
    return config | {"linux": linux, "process": process}


def refused(spec: SandboxSpec) -> None:
    """For a runtime without device rules.

    Raises:
        Precondition: DEVICES_NEED_CRUN.
    """
    if spec.devices:
        raise Precondition(
            "This node's sandbox runtime cannot keep devices apart, so it hands none over.",
            reason="DEVICES_NEED_CRUN",
            field="devices",
            remedy="Run the agent as root with crun installed; the device rules are the cgroup's.",
        )
