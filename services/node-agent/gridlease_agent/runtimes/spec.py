"""What a sandbox is, before any runtime has a say: one frozen record."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gridlease_kernel.faults import Invalid

from gridlease_agent.domain.task import WORK_PATH, NetworkGrant

TASK_ID = 1000  # the task's uid and gid inside its sandbox
UID_RANGE = 65_536  # host uids that one lease's user namespace maps
UID_BASE = 200_000
ENV_PATH = "/opt/gridlease/env"
NOTICE_PATH = "/run/gridlease"
TMP_PATH = "/tmp"  # noqa: S108 - the sandbox's own
SHM_PATH = "/dev/shm"  # noqa: S108 - the sandbox's own
STAGE_PATH = "/run/gridlease/sandbox"  # where a root shim mounts its private staging tmpfs

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or file shown inside the sandbox."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    """How a sandbox is joined to the node's fabric. ``slot``: numbers its link and addresses.

    ``gang``: whose members may reach each other; ``index``: its number among them. ``namespace``
    and ``link`` are filled in by who made them: a path, and the interface to cut at the deadline
    as (namespace's path, name).
    """

    slot: int
    tenant: str
    grant: NetworkGrant
    gang: str = ""
    index: int = 0
    namespace: str = ""
    link: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """All that decides how one task is isolated. Paths are the host's unless said otherwise."""

    lease_id: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = WORK_PATH
    hostname: str = "task"
    uid_base: int = UID_BASE
    memory_bytes: int = 512 * _MIB
    cpu_milli: int = 1000
    pids: int = 256
    disk_bytes: int = 1024 * _MIB
    disk_inodes: int = 200_000
    tmp_bytes: int = 64 * _MIB
    shm_bytes: int = 64 * _MIB
    log_limit_bytes: int = 16 * _MIB
    environment: str = ""
    environment_env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    keep: tuple[str, ...] = ()
    root: str = ""  # the image, by digest, to see as / in place of the host's programs
    user: int = TASK_ID  # who runs in it, by its own number; never 0
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    devices: tuple[str, ...] = ()  # of this node, by id
    cpus: str = ""  # the only cores it may use, as "0-3,8"; empty = any
    core_tag: bool = False  # whole cores of its own: no other lease on any of their threads
    own_cores: tuple[tuple[int, ...], ...] = ()  # those cores, filled in by who gave them
    io_device: str = ""  # "major:minor" of the disk under its folder; empty = not limited
    io_bytes_per_s: int = 0  # of reading, and as much of writing
    network: Network | None = None  # None = the loopback interface alone
    hold: str = ""  # made ahead and let go later: "created" or "frozen"; see runtimes.held
    emulated_duration_ms: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no runtime can honour.

        Raises:
            Invalid: SANDBOX_SPEC_INVALID, naming the field.
        """
        for name, floor in (
            ("memory_bytes", 8 * _MIB),
            ("cpu_milli", 10),
            ("pids", 4),
            ("disk_bytes", 1 << 16),
            ("disk_inodes", 16),
            ("log_limit_bytes", 1024),
        ):
            if getattr(self, name) < floor:
                raise _invalid(name, f"is below {floor}")
        if not self.argv:
            raise _invalid("argv", "is empty")
        if not self.lease_id or not set(self.lease_id) <= _ID_LETTERS or self.lease_id[0] in ".-":
            raise _invalid("lease_id", "holds letters that no folder name should")
        texts = [*self.argv, *(text for pair in self.env for text in pair)]
        if any("\0" in text for text in texts):
            raise _invalid("argv", "or env holds a NUL byte")

    @property
    def host_uid(self) -> int:
        """The host's number of the task's user."""
        return self.uid_base + self.user


_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def _invalid(name: str, trouble: str) -> Invalid:
    return Invalid(
        f"The sandbox's {name} {trouble}.",
        reason="SANDBOX_SPEC_INVALID",
        field=name,
        remedy="Correct the job's resources or commands.",
    )


def uid_base(slot: int) -> int:
    """The first host uid of a lease slot: slots never share a uid.

    >>> uid_base(2)
    331072
    """
    assert 0 <= slot < 60_000, slot
    return UID_BASE + slot * UID_RANGE


def shell_argv(commands: Sequence[str], shell: str = "/bin/bash") -> tuple[str, ...]:
    """The argv that runs ``commands`` one after the other and stops at the first failure.

    >>> shell_argv(["echo a"], "/bin/sh")
    ('/bin/sh', '-e', '-c', 'echo a')
    """
    flags = "-eo pipefail" if shell.endswith("bash") else "-e"
    return (shell, *shlex.split(flags), "-c", "\n".join(commands))


def init_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """``argv`` under a shell as process 1, which reaps orphans and passes the exit code on.

    A process 1 without a handler never sees SIGTERM, so the task itself must not be process 1.
    """
    return ("/bin/sh", "-c", '"$@"\nexit $?', "init", *argv)


def task_env(spec: SandboxSpec) -> dict[str, str]:
    """The task's whole environment: nothing of the agent's own leaks in."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    threads = str(max(1, -(-spec.cpu_milli // 1000)))
    base = {
        "PATH": f"{ENV_PATH}/bin:{path}" if spec.environment else path,
        "HOME": WORK_PATH,
        "USER": "task",
        "TMPDIR": TMP_PATH,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "GRIDLEASE_NOTICE_FILE": f"{NOTICE_PATH}/notice.json",
        # Libraries count the host's cores; more threads than quota only get in each other's way.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    return base | dict(spec.environment_env) | dict(spec.env)


def rlimits(spec: SandboxSpec) -> dict[str, int]:
    """Limits of each process, beside what the cgroup limits in sum."""
    # CORE 1, not 0: a host's crash handler behind a pipe ("|…" in core_pattern) is asked whatever
    # the limit, except at 1, which the kernel keeps for "no dump at all". Source: fs/coredump.c.
    return {"NOFILE": 65_536, "NPROC": spec.pids, "CORE": 1, "FSIZE": spec.disk_bytes}


def plan_common(spec: SandboxSpec) -> dict[str, Any]:
    """The parts of ``spec.json`` that do not depend on the runtime."""
    return {
        "version": 1,
        "lease_id": spec.lease_id,
        "hold": spec.hold,
        "disk_bytes": spec.disk_bytes,
        "disk_inodes": spec.disk_inodes,
        "log_limit_bytes": spec.log_limit_bytes,
        "rlimits": rlimits(spec),
        "keep": list(spec.keep),
    }
