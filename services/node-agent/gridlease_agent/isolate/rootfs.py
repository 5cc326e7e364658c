"""What a sandbox sees of this host's file system: its /usr, read-only, and a tiny /etc."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from gridlease_agent.isolate.cgroups import CgroupMode
from gridlease_agent.isolate.cgroups import mode as cgroup_mode
from gridlease_agent.runtimes.spec import TASK_ID

_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Shared by every program of the host: names behind alternatives, and roots of trust.
_ETC_FOLDERS = ("etc/alternatives", "etc/ssl/certs", "etc/ca-certificates", "etc/pki")
_PASSWD = (
    "root:x:0:0:root:/work:/bin/sh\n"
    f"task:x:{TASK_ID}:{TASK_ID}:task:/work:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n"
)
_GROUP = f"root:x:0:\ntty:x:5:\ntask:x:{TASK_ID}:\nnogroup:x:65534:\n"


# Of everybody on the host, not of the task: clocks, keys, memory, hardware.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The host's part of every sandbox's root file system."""

    links: tuple[tuple[str, str], ...]
    binds: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    shell: str
    machine: str
    swap_limit: bool = True
    masked_files: tuple[str, ...] = ()
    masked_folders: tuple[str, ...] = ()
    cgroups: CgroupMode = CgroupMode.HYBRID


def read(root: Path = Path("/")) -> HostRoot:
    """Look at the host once: which top folders are links into /usr, and which are folders."""
    links: list[tuple[str, str]] = []
    binds = [("/usr", "/usr")]
    for name in _TOP:
        path = root / name
        if path.is_symlink():
            links.append((f"/{name}", str(path.readlink())))
        elif path.is_dir():
            binds.append((f"/{name}", f"/{name}"))
    binds += [(f"/{name}", f"/{name}") for name in _ETC_FOLDERS if (root / name).is_dir()]
    if (root / "etc/ld.so.cache").is_file():
        binds.append(("/etc/ld.so.cache", "/etc/ld.so.cache"))
    files = (
        ("/etc/passwd", _PASSWD),
        ("/etc/group", _GROUP),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/resolv.conf", ""),
    )
    shell = "/bin/bash" if (root / "bin/bash").exists() else "/bin/sh"
    # Debian's and Ubuntu's v1 kernels leave swap accounting out unless asked at boot.
    v1 = root / "sys/fs/cgroup/memory"
    swap_limit = not v1.is_dir() or (v1 / "memory.memsw.limit_in_bytes").exists()
    here = [path for path in MASKED if (root / path.lstrip("/")).exists()]
    folders = tuple(path for path in here if (root / path.lstrip("/")).is_dir())
    return HostRoot(
        tuple(links),
        tuple(binds),
        files,
        shell,
        platform.machine(),
        swap_limit=swap_limit,
        masked_files=tuple(path for path in here if path not in folders),
        masked_folders=folders,
        cgroups=cgroup_mode(root / "sys/fs/cgroup"),
    )
