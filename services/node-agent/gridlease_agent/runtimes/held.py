"""Sandboxes made ahead: of one tenant, with no task in them yet; a lease takes one as its own.

Created ones wait at the runtime's last step before their first program; frozen ones have Python
and its modules in memory. Either holds no device and no tenant's data. Letting one go renames its
folder to the lease's, so from then on all that is known of leases is true of it; its cgroup and
its container keep the name that they were made with, which stands in ``spec.json``.

What the keeper does: see ``keeper/hold.c``. Nothing here keeps state: what was begun and not
ended is seen in the folders. ``prepared`` in a folder is a lease's own, on its way into it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shlex
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Fault, Precondition

from gridlease_agent import shim
from gridlease_agent.domain.warm import PREFIX, Being
from gridlease_agent.isolate.resize import resize
from gridlease_agent.runtimes import limits, secrets, zygote
from gridlease_agent.runtimes.holding import Ahead
from gridlease_agent.runtimes.spec import ENV_PATH, NOTICE_PATH, SandboxSpec, task_env
from gridlease_agent.runtimes.states import Absent, Running, Starting
from gridlease_agent.runtimes.work import give
from gridlease_agent.sandbox import Deadline, Sandboxes

CREATED, FROZEN = "created", "frozen"
# exec: SIGTERM goes to the direct children of process 1, so the task itself must be one.
_CREATED_ARGV = ("/bin/sh", "-c", f"exec /bin/sh {NOTICE_PATH}/launch")
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


class HeldSandboxes:
    """Makes sandboxes ahead and hands them over; blocking, for the executor."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    def make(
        self, warm_id: str, spec: SandboxSpec, deadline: Deadline, modules: tuple[str, ...] = ()
    ) -> None:
        """Begin to make one, frozen with ``modules`` if there are any.

        Raises:
            Precondition: NOT_HOLDABLE; it would hold what is a task's alone.
        """
        assert spec.lease_id == warm_id, (spec.lease_id, warm_id)
        alone = spec.devices or spec.secrets or spec.network or spec.core_tag
        if alone or not warm_id.startswith(PREFIX) or not self._sandboxes.keeper.holds:
            raise _not_holdable(warm_id)
        folder = self._sandboxes.folder(warm_id)
        self._sandboxes.prepare(warm_id)
        (folder / "held.json").unlink(missing_ok=True)  # the keeper's to write
        python = f"{ENV_PATH}/bin/python3" if spec.environment else "python3"
        argv = (python, "-c", inspect.getsource(zygote), *modules) if modules else _CREATED_ARGV
        if modules:
            os.mkfifo(folder / "notice" / "go", 0o644)
            (folder / "notice" / "go").chmod(0o644)
        hold = FROZEN if modules else CREATED
        made = dataclasses.replace(spec, argv=argv, hold=hold)
        self._sandboxes.start(warm_id, made, deadline)

    def seen(self) -> tuple[Ahead, ...]:
        """All that are here, whoever made them."""
        names = [each for each in self._sandboxes.list() if each.startswith(PREFIX)]
        return tuple(Ahead(each, self._being(each)) for each in names)

    def _being(self, warm_id: str) -> Being:
        if self.warm(warm_id):
            return Being.WAITING
        folder = self._sandboxes.folder(warm_id)
        state = self._sandboxes.inspect(warm_id)
        making = isinstance(state, Starting) and not (folder / "prepared").exists()
        return Being.MAKING if making else Being.OVER

    def warm(self, warm_id: str) -> bool:
        """Is it made, and does it wait, with nothing of anybody in it?"""
        prepared = self._sandboxes.folder(warm_id) / "prepared"
        return not prepared.exists() and self._waits(warm_id)

    def _waits(self, warm_id: str) -> bool:
        folder = self._sandboxes.folder(warm_id)
        held = shim.read_json(str(folder / "held.json")) or {}
        own = shim.read_json(str(folder / "shim.json")) or {}
        alive = bool(own) and shim.start_ticks(own["pid"]) == own["start_ticks"]
        if any((folder / name).exists() for name in ("exit.json", "stop.json")):
            return False
        return alive and held.get("boot_id") == shim.boot_id() and "init_pid" in held

    def extend(self, warm_id: str, deadline: Deadline) -> None:
        """It may wait until then."""
        self._sandboxes.extend(warm_id, deadline)

    def release(
        self, warm_id: str, spec: SandboxSpec, commands: tuple[str, ...], deadline: Deadline
    ) -> None:
        """The sandbox becomes the lease's and runs; may be repeated. The STARTING row is on disk.

        Raises:
            Precondition: NOT_WARM; nothing has happened, start the lease as any other.
            Fault, OSError: it has become the lease's, and its end is on its way.
        """
        folder = self._sandboxes.folder(spec.lease_id)
        if not self._begun(warm_id, folder):
            self._rename(warm_id, folder)
        if (folder / "release.json").exists():
            return
        try:
            self._let_go(warm_id, folder, spec, commands, deadline)
        except BaseException as trouble:
            reason = "START_FAILED" if isinstance(trouble, Fault) else "START_LOST"
            self._sandboxes.stop(spec.lease_id, 0, reason, ("", str(trouble)))
            raise

    def _begun(self, warm_id: str, folder: Path) -> bool:
        plan = shim.read_json(str(folder / "spec.json")) or {}
        return not self._sandboxes.folder(warm_id).exists() and bool(plan.get("hold"))

    def _rename(self, warm_id: str, folder: Path) -> None:
        """The lease's own folder goes into the warm one, and that takes its name."""
        here = self._sandboxes.folder(warm_id)
        waits = self._waits(warm_id)
        try:
            if waits and folder.exists():
                folder.rename(here / "prepared")
            if waits:
                here.rename(folder)
                return
        except OSError:
            waits = False
        if not folder.exists() and (here / "prepared").exists():  # as it was, also from a crash
            (here / "prepared").rename(folder)
        raise _not_warm(warm_id)

    def _let_go(
        self,
        warm_id: str,
        folder: Path,
        spec: SandboxSpec,
        commands: tuple[str, ...],
        deadline: Deadline,
    ) -> None:
        plan = shim.read_json(str(folder / "spec.json")) or {}
        spec = dataclasses.replace(spec, uid_base=_uid_base(plan, spec))
        _bring(folder)
        if os.geteuid() == 0:
            give(folder / "work", spec.host_uid)
        self._sandboxes.ground.left(warm_id)
        spec = self._sandboxes.ground.ready(spec)
        resize(plan["cgroup"], spec.memory_bytes, spec.cpu_milli, spec.cpus)
        secrets.put(folder, spec)
        _write_launch(folder / "notice", spec, commands)
        _replace(folder / "deadline.json", dataclasses.asdict(deadline))
        _replace(folder / "release.json", {"lease_id": spec.lease_id})
        self._sandboxes.poke(spec.lease_id)
        # For an agent that starts again; the keeper has read its own long ago.
        _replace(folder / "spec.json", {**plan, "lease_id": spec.lease_id, **limits.plan(spec)})

    def drop(self, warm_id: str) -> bool:
        """End one that nobody took; whether nothing is left of it. To be repeated until then."""
        folder = self._sandboxes.folder(warm_id)
        assert warm_id.startswith(PREFIX), warm_id
        if not folder.is_dir():
            return True
        state = self._sandboxes.inspect(warm_id)
        if isinstance(state, Starting | Running):
            self._sandboxes.stop(warm_id, 0, "START_LOST")
            return False
        if not isinstance(state, Absent):
            self._sandboxes.remove(warm_id)
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    def abandon(self, lease_ids: Collection[str]) -> tuple[str, ...]:
        """Those whose release was begun and not ended by somebody who is gone: they end."""
        found = []
        for lease_id in lease_ids:
            folder = self._sandboxes.folder(lease_id)
            plan = shim.read_json(str(folder / "spec.json")) or {}
            if plan.get("hold") and not (folder / "release.json").exists():
                self._sandboxes.stop(lease_id, 0, "START_LOST")
                found.append(lease_id)
        return tuple(found)


def _bring(folder: Path) -> None:
    """What was prepared for the lease lies in its working folder; may be repeated.

    Nobody runs in the sandbox meanwhile: it waits at its gate, or is frozen.
    """
    prepared = folder / "prepared"
    if (prepared / "work").is_dir():
        for path in list((prepared / "work").iterdir()):
            target = folder / "work" / path.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            path.rename(target)
    shutil.rmtree(prepared, ignore_errors=True)


def _uid_base(plan: Mapping[str, Any], spec: SandboxSpec) -> int:
    """The users that it was made with."""
    return int(plan["owner"]) - spec.user if os.geteuid() == 0 else spec.uid_base


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
