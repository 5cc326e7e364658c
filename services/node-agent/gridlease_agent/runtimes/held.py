"""Sandboxes made ahead: of one tenant, with no task in them yet; a lease takes one as its own.

Created ones wait at the runtime's last step before their first program; frozen ones have Python
and its modules in memory. Either holds no device and no tenant's data. Letting one go renames its
folder to the lease's, so from then on all that is known of leases is true of it; its cgroup and
its container keep the name that they were made with, which stands in ``spec.json``.

What the keeper does: see ``keeper/hold.c``. Nothing here keeps state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Precondition

from gridlease_agent import shim
from gridlease_agent.runtimes import secrets, zygote
from gridlease_agent.runtimes.spec import ENV_PATH, NOTICE_PATH, SandboxSpec, task_env
from gridlease_agent.sandbox import Deadline, Sandboxes

CREATED, FROZEN = "created", "frozen"
PREFIX = "warm-"
# exec: SIGTERM goes to the direct children of process 1, so the task itself must be one.
_CREATED_ARGV = ("/bin/sh", "-c", f"exec /bin/sh {NOTICE_PATH}/launch")
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


class HeldSandboxes:
    """Makes sandboxes ahead and hands them over; blocking, for the executor."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    def make(self, spec: SandboxSpec, deadline: Deadline, modules: tuple[str, ...] = ()) -> None:
        """Begin to make one under ``spec.lease_id``, frozen with ``modules`` if there are any.

        Raises:
            Precondition: NOT_HOLDABLE; it would hold what is a task's alone.
        """
        if spec.devices or spec.secrets or spec.network or not spec.lease_id.startswith(PREFIX):
            raise _not_holdable(spec.lease_id)
        folder = self._sandboxes.folder(spec.lease_id)
        self._sandboxes.prepare(spec.lease_id)
        python = f"{ENV_PATH}/bin/python3" if spec.environment else "python3"
        argv = (python, "-c", inspect.getsource(zygote), *modules) if modules else _CREATED_ARGV
        if modules:
            os.mkfifo(folder / "notice" / "go", 0o644)
            (folder / "notice" / "go").chmod(0o644)
        hold = FROZEN if modules else CREATED
        made = dataclasses.replace(spec, argv=argv, hold=hold)
        self._sandboxes.start(spec.lease_id, made, deadline)

    def warm(self, warm_id: str) -> bool:
        """Is it made, and does it wait?"""
        folder = self._sandboxes.folder(warm_id)
        held = shim.read_json(str(folder / "held.json")) or {}
        own = shim.read_json(str(folder / "shim.json")) or {}
        alive = bool(own) and shim.start_ticks(own["pid"]) == own["start_ticks"]
        if (folder / "exit.json").exists():
            return False
        return alive and held.get("boot_id") == shim.boot_id() and "init_pid" in held

    def release(
        self, warm_id: str, spec: SandboxSpec, commands: tuple[str, ...], deadline: Deadline
    ) -> None:
        """The sandbox becomes the lease's and runs. Its STARTING row is on disk by now.

        Raises:
            Precondition: NOT_WARM; nothing has happened, start the lease as any other.
        """
        here = self._sandboxes.folder(warm_id)
        folder = self._sandboxes.folder(spec.lease_id)
        if not self.warm(warm_id):
            raise _not_warm(warm_id)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        here.rename(folder)
        secrets.put(folder, dataclasses.replace(spec, uid_base=_uid_base(folder, spec)))
        _write_launch(folder / "notice", spec, commands)
        _replace(folder / "deadline.json", dataclasses.asdict(deadline))
        _replace(folder / "release.json", {"lease_id": spec.lease_id})
        self._sandboxes.poke(spec.lease_id)

    def drop(self, warm_id: str) -> None:
        """End one that nobody took."""
        self._sandboxes.kill(warm_id)


def _uid_base(folder: Path, spec: SandboxSpec) -> int:
    """The user that it was made with, who owns its working folder."""
    return (folder / "work").stat().st_uid - spec.user if os.geteuid() == 0 else spec.uid_base


def _write_launch(notice: Path, spec: SandboxSpec, commands: tuple[str, ...]) -> None:
    env = task_env(spec)
    if not (notice / "go").exists():
        _put(notice / "launch", _script(spec, env))
        return
    launch: Mapping[str, Any] = {
        "env": env, "cwd": spec.cwd, "commands": commands, "argv": spec.argv,
    }  # fmt: skip
    _put(notice / "launch.json", json.dumps(launch))
    # It reads the FIFO since before it was frozen: the byte waits for it there.
    fd = os.open(notice / "go", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"g")
    os.close(fd)


def _script(spec: SandboxSpec, env: Mapping[str, str]) -> str:
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in env.items()
        if name and not set(name) - set(_PLAIN) and not name[0].isdigit()
    ]
    return "\n".join([*lines, f"cd {shlex.quote(spec.cwd)}", f"exec {shlex.join(spec.argv)}", ""])


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or absent, and not waited for: after a power cut nothing of another boot counts."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(value), "utf-8")
    draft.replace(path)


def _put(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o644)


def _not_holdable(warm_id: str) -> Precondition:
    return Precondition(
        f"{warm_id} would hold a device, a secret or a network before it has a task.",
        reason="NOT_HOLDABLE",
    )


def _not_warm(warm_id: str) -> Precondition:
    return Precondition(f"{warm_id} does not wait any more.", reason="NOT_WARM")
