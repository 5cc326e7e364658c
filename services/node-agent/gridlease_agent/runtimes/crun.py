"""The launch plan of a sandbox under crun: an OCI configuration and what the shim stages for it.

The shim mounts a tmpfs at ``STAGE_PATH`` in its own mount namespace and binds every source under
it, because the state folder may lie where the mapped user cannot enter. So the configuration
names only staged paths, and it is the same whatever folder the node keeps its state in.
"""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Any

from gridlease_agent.domain.task import WORK_PATH
from gridlease_agent.isolate.cgroups import cgroup_of
from gridlease_agent.isolate.rootfs import MASKED, HostRoot
from gridlease_agent.runtimes import image, limits, network
from gridlease_agent.runtimes.spec import (
    ENV_PATH,
    NOTICE_PATH,
    SHM_PATH,
    STAGE_PATH,
    TMP_PATH,
    UID_RANGE,
    Mount,
    SandboxSpec,
    init_argv,
    plan_common,
    rlimits,
    task_env,
)
from gridlease_agent.seccomp import bpf, oci, profile

_CPU_PERIOD_US = 100_000  # 25 % measured at +0.00 % with 100 ms, -0.85 % with 10 ms
ROOTFS = "bundle/rootfs"
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def mounts_of(spec: SandboxSpec, host: HostRoot, folder: str) -> list[Mount]:
    """Every host folder or file that the sandbox shows, sources as they are on the host."""
    shown = image.host_binds(spec, host)
    if spec.environment:
        shown.append(Mount(spec.environment, ENV_PATH))
    shown += spec.mounts
    shown.append(Mount(f"{folder}/notice", NOTICE_PATH))
    shown.append(Mount(f"{folder}/work", WORK_PATH, read_only=False))
    return shown


def render(spec: SandboxSpec, host: HostRoot, folder: str, program: str) -> dict[str, Any]:
    """``spec.json`` for the shim: what to stage, and the OCI configuration to run.

    Args:
        folder: the lease's folder on the host.
        program: crun's path.
    """
    shown = mounts_of(spec, host, folder)
    staged = [f"m/{index}" for index in range(len(shown))]
    return plan_common(spec) | {
        "runtime": "crun",
        "program": [program],
        "stage": STAGE_PATH,
        "private": True,
        "cgroup": cgroup_of(Path(folder)),
        "owner": spec.host_uid,
        "run_as": -1,
        "binds": [
            [mount.source, path, mount.read_only] for mount, path in zip(shown, staged, strict=True)
        ],
        "links": [[ROOTFS + path, target] for path, target in host.links],
        "files": [[ROOTFS + path, text] for path, text in host.files],
        "oci": _config(spec, host, folder, list(zip(shown, staged, strict=True))),
        **network.plan(spec),
        **limits.plan(spec),
    }


def _config(
    spec: SandboxSpec, host: HostRoot, folder: str, staged: list[tuple[Mount, str]]
) -> dict[str, Any]:
    # Source: OCI runtime specification 1.0.2, config.md and config-linux.md.
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": f"{STAGE_PATH}/{ROOTFS}", "readonly": True},
        "process": _process(spec),
        "mounts": _mounts(spec, staged),
        "linux": _linux(spec, cgroup_of(Path(folder)), swap_limit=host.swap_limit),
        "annotations": {},
    }
    arch = bpf.host_arch(host.machine)
    if arch is not None:
        strict = profile.load(arch)
        config["linux"]["seccomp"] = oci.render(strict)
        # crun loads this program instead of compiling the list above: a third of the CPU.
        config["annotations"]["run.oci.seccomp_bpf_data"] = _program(arch)
    limits.apply(config, spec, host.cgroups)
    network.apply(config, spec)
    return config


@functools.cache
def _program(arch: profile.Arch) -> str:
    """The profile, compiled: the same for every sandbox."""
    return base64.b64encode(bpf.compile_profile(profile.load(arch))).decode("ascii")


def _process(spec: SandboxSpec) -> dict[str, Any]:
    nothing: list[str] = []
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "terminal": False,
        "user": {"uid": spec.user, "gid": spec.user, "umask": 0o022},
        "args": list(init_argv(spec.argv)),
        "env": [f"{key}={value}" for key, value in task_env(spec).items()],
        "cwd": spec.cwd,
        "noNewPrivileges": True,
        "capabilities": dict.fromkeys(kinds, nothing),
        "rlimits": [
            {"type": f"RLIMIT_{name}", "soft": limit, "hard": limit}
            for name, limit in rlimits(spec).items()
        ],
    }


def _tmpfs(target: str, size_bytes: int, mode: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", f"mode={mode}", f"size={size_bytes}"]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _mounts(spec: SandboxSpec, staged: list[tuple[Mount, str]]) -> list[dict[str, Any]]:
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    rows = [
        {
            "destination": "/proc",
            "type": "proc",
            "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        _tmpfs(SHM_PATH, spec.shm_bytes, "1777"),
        _tmpfs(TMP_PATH, spec.tmp_bytes, "1777"),
    ]
    for mount, path in staged:
        access = "ro" if mount.read_only else "rw"
        rows.append(
            {
                "destination": mount.target,
                "type": "bind",
                "source": f"{STAGE_PATH}/{path}",
                "options": ["rbind", "rprivate", "nosuid", "nodev", access],
            }
        )
    return rows


def _linux(spec: SandboxSpec, cgroup: str, *, swap_limit: bool) -> dict[str, Any]:
    memory = {"limit": spec.memory_bytes}
    if swap_limit:
        memory["swap"] = spec.memory_bytes  # memory and swap together: no swap at all
    mapping = [{"containerID": 0, "hostID": spec.uid_base, "size": UID_RANGE}]
    names = ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
    return {
        "namespaces": [{"type": name} for name in names],
        "uidMappings": mapping,
        "gidMappings": mapping,
        "cgroupsPath": f"/{cgroup}",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": memory,
            "cpu": {"quota": spec.cpu_milli * _CPU_PERIOD_US // 1000, "period": _CPU_PERIOD_US},
            "pids": {"limit": spec.pids},
        },
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
