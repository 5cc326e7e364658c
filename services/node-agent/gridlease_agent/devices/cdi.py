"""CDI documents of this host's devices, and their merge into a sandbox's OCI configuration.

One document a family; a sandbox is given devices by their qualified names, "vendor/class=id".
The merge is blind to vendors: nodes with their allow rules, mounts, environment, and those hooks
whose program is on the list of allowed digests, run with an empty environment.

Source: CDI specification 0.7.0 (tags.cncf.io), "containerEdits"; OCI runtime specification 1.0.2.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from gridlease_kernel.faults import Precondition

from gridlease_agent.devices.family import Family
from gridlease_agent.probes.facts import DeviceFacts

VERSION = "0.7.0"
Document: TypeAlias = dict[str, Any]


def qualified(device: DeviceFacts) -> str:
    """The name by which a sandbox asks for a device."""
    return f"{device.kind}={device.id}"


def documents(
    families: Iterable[Family], devices: Sequence[DeviceFacts], root: Path = Path("/")
) -> tuple[Document, ...]:
    """A document for each kind that has devices; families of one kind share it."""
    by_kind: dict[str, Document] = {}
    for family in families:
        mine = [x for x in devices if x.kind == family.kind and x.family == family.family]
        if mine:
            document = by_kind.setdefault(
                family.kind, {"cdiVersion": VERSION, "kind": family.kind, "devices": []}
            )
            document["devices"] += [_device(family, device, root) for device in mine]
    return tuple(by_kind.values())


def _device(family: Family, device: DeviceFacts, root: Path) -> dict[str, Any]:
    """All edits stand at the device: a family's own must not reach another of the same kind."""
    edits: dict[str, Any] = {"deviceNodes": [_node(root, node) for node in device.nodes]}
    mounts = [_mount(root, path) for pattern in family.mounts for path in _paths(root, pattern)]
    if mounts:
        edits["mounts"] = mounts
    if family.env:
        edits["env"] = [f"{key}={text}" for key, text in sorted(family.env.items())]
    gids = sorted({gid for node in device.nodes if (gid := _group(root, node))})
    if gids:
        edits["additionalGids"] = gids
    if family.hooks:
        edits["hooks"] = [dict(hook) for hook in family.hooks]
    return {"name": device.id, "containerEdits": edits}


def _group(root: Path, node: str) -> int:
    """The group that alone may open a node; 0 = whoever may, it is not by a group.

    Raises:
        Precondition: DEVICE_NODE_CLOSED.
    """
    try:
        facts = (root / node.lstrip("/")).stat()
    except OSError:
        return 0
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o006 == 0o006 or not (stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)):
        return 0
    if mode & 0o060 != 0o060 or facts.st_gid == 0:
        raise Precondition(
            f"{node} is closed to everybody but root (mode {mode:o}).",
            reason="DEVICE_NODE_CLOSED",
            field=node,
            remedy="Let its driver's rule open it to a group of its own, such as render.",
        )
    return facts.st_gid


def _node(root: Path, node: str) -> dict[str, Any]:
    """A node with its numbers; one that is no device has none, and is refused at the merge."""
    entry: dict[str, Any] = {"path": node}
    if root != Path("/"):
        entry["hostPath"] = str(root / node.lstrip("/"))
    try:
        facts = (root / node.lstrip("/")).stat()
    except OSError:
        return entry
    for kind, test in (("c", stat.S_ISCHR), ("b", stat.S_ISBLK)):
        if test(facts.st_mode):
            major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
            entry |= {"type": kind, "major": major, "minor": minor, "permissions": "rw"}
    return entry


def _paths(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern.lstrip("/")))


def _mount(root: Path, path: Path) -> dict[str, Any]:
    options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    return {
        "hostPath": str(path),
        "containerPath": "/" + str(path.relative_to(root)),
        "options": options,
    }


def edits_of(names: Iterable[str], known: Iterable[Document]) -> list[dict[str, Any]]:
    """The edits of the devices named.

    Raises:
        Precondition: NO_SUCH_DEVICE.
    """
    table = {
        f"{document['kind']}={device['name']}": device.get("containerEdits", {})
        for document in known
        for device in document["devices"]
    }
    common = {
        document["kind"]: document["containerEdits"]
        for document in known
        if "containerEdits" in document
    }
    found = []
    for name in names:
        if name not in table:
            raise Precondition(
                f"This node has no device {name}.",
                reason="NO_SUCH_DEVICE",
                field="device",
                remedy="Report the inventory again; the lease was written for another state of it.",
            )
        kind = name.partition("=")[0]
        found += [common.pop(kind)] if kind in common else []
        found.append(table[name])
    return found


def merged(
    config: Mapping[str, Any], edits: Iterable[Mapping[str, Any]], hooks: Collection[str] = ()
) -> dict[str, Any]:
    """An OCI configuration with these edits; the one given stays as it is.

    Args:
        config: with ``process``, ``mounts`` and ``linux``.
        edits: CDI's containerEdits.
        hooks: SHA-256 digests (hex) of programs that may run as hooks.

    Raises:
        Precondition: DEVICE_NODE_INVALID, HOOK_NOT_ALLOWED.
    """
    result = dict(config)
    linux = dict(result.get("linux", {}))
    resources = dict(linux.get("resources", {}))
    nodes: dict[str, dict[str, Any]] = {x["path"]: x for x in linux.get("devices", ())}
    rules = list(resources.get("devices", ()))
    process = dict(result.get("process", {}))
    env, mounts = list(process.get("env", ())), list(result.get("mounts", ()))
    called: dict[str, list[dict[str, Any]]] = {}
    for edit in edits:
        for node in edit.get("deviceNodes", ()):
            if node["path"] not in nodes:
                nodes[node["path"]] = _oci_node(node)
                rules.append(_rule(node))
        env += [text for text in edit.get("env", ()) if text not in env]
        mounts += [_oci_mount(each) for each in edit.get("mounts", ())]
        for hook in edit.get("hooks", ()):
            called.setdefault(hook["hookName"], []).append(_hook(hook, hooks))
    resources["devices"] = rules
    result["linux"] = linux | {"devices": list(nodes.values()), "resources": resources}
    result["process"] = process | {"env": env}
    result["mounts"] = _once(mounts)
    if called:
        result["hooks"] = dict(result.get("hooks", {})) | called
    return result


def _oci_node(node: Mapping[str, Any]) -> dict[str, Any]:
    # A plain file under /dev is what `>` leaves behind where a driver is missing.
    if node.get("type") not in ("c", "b"):
        raise Precondition(
            f"{node['path']} is not a device node.",
            reason="DEVICE_NODE_INVALID",
            field=node["path"],
            remedy="Load the driver, remove the plain file if there is one, and report again.",
        )
    found = {key: node[key] for key in ("path", "type", "major", "minor")}
    return found | {"fileMode": node.get("fileMode", 0o666), "uid": 0, "gid": 0}


def _rule(node: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: node[key] for key in ("type", "major", "minor")}
    return {"allow": True, "access": node.get("permissions", "rw"), **numbers}


def _oci_mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "destination": mount["containerPath"],
        "source": mount["hostPath"],
        "type": "bind",
        "options": list(mount.get("options", ("ro", "nosuid", "nodev", "bind"))),
    }


def _once(mounts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first mount at each place."""
    found: dict[str, dict[str, Any]] = {}
    for mount in mounts:
        found.setdefault(mount["destination"], mount)
    return list(found.values())


def _hook(hook: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """A vendor's program that runs as root beside the sandbox: only if it is one we know."""
    digest, ours = "", False
    try:
        facts = Path(hook["path"]).stat()
        digest = hashlib.sha256(Path(hook["path"]).read_bytes()).hexdigest()
        # Whoever else could write it could swap it between this look and its run.
        ours = facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o022
    except OSError:
        pass
    if digest not in allowed or not ours:
        raise Precondition(
            f"The hook {hook['path']} is not one that may run (sha256 {digest or 'unreadable'}).",
            reason="HOOK_NOT_ALLOWED",
            field=hook["path"],
            remedy="Look at the program; then add its digest to the node's allowed hooks.",
        )
    # Its environment is empty but for a path: LD_PRELOAD and the like must not reach it.
    given = {
        "path": hook["path"],
        "args": list(hook.get("args", ())),
        "env": ["PATH=/usr/bin:/bin"],
    }
    return given | ({"timeout": hook["timeout"]} if "timeout" in hook else {})
