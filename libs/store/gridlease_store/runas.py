"""As whom PostgreSQL runs: it refuses root, and nothing may be widened for it.

As root a user namespace maps root to an existing unprivileged account: every file stays root's,
so a folder that only root can enter works too. Where namespaces are refused, the server drops to
that account with ``setpriv``. No account is created and no parent folder changes its mode.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Precondition

_PROBE_TIMEOUT_S = 20
_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class RunAs:
    """A command prefix, and the owner that the server's own files need (None: as created)."""

    name: str
    prefix: tuple[str, ...]
    owner: tuple[int, int] | None = None

    def own(self, path: Path) -> None:
        """Give a file or folder of ours to the account that the server runs as."""
        if self.owner is not None:
            os.chown(path, *self.owner)


DIRECT = RunAs("direct", ())


def namespace() -> RunAs | None:
    """Root outside, an unprivileged account inside; None without such an account."""
    account = _account()
    if account is None:
        return None
    uid, gid = account
    maps = (f"--map-user={uid}", f"--map-group={gid}")
    return RunAs("namespace", ("unshare", "--user", *maps, "--"))


def account(owner: tuple[int, int] | None = None) -> RunAs | None:
    """The server as an existing unprivileged account: ``owner``, else postgres, else nobody."""
    owner = owner or _account()
    if owner is None:
        return None
    uid, gid = owner
    ids = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    return RunAs("account", ("setpriv", *ids, "--"), owner)


def choose(binary: Path, folder: Path, data: Path) -> RunAs:
    """How to run ``binary`` so that it can work below ``folder``.

    A data folder that exists decides by its owner; else the first way that works is taken.

    Raises:
        Precondition: POSTGRES_ACCOUNT where no way works, or the data is somebody else's.
    """
    uid = os.geteuid()
    owner = data.stat() if data.exists() else None
    if uid != 0:
        if owner is not None and owner.st_uid != uid:
            raise _refused(f"{data} belongs to uid {owner.st_uid}, and this is uid {uid}.")
        return DIRECT
    if owner is None:
        ways = [namespace(), account()]
    elif owner.st_uid == 0:
        ways = [namespace()]
    else:
        ways = [account((owner.st_uid, owner.st_gid))]
    for way in ways:
        if way is not None and _works(way, binary, folder):
            return way
    raise _refused(
        "PostgreSQL refuses to run as root, user namespaces are refused here, and no "
        f"unprivileged account can reach {binary} and {folder}."
    )


def _account() -> tuple[int, int] | None:
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return None


def _works(way: RunAs, binary: Path, folder: Path) -> bool:
    """Whether the way can enter the folder and run the binaries.

    initdb tells: setpriv still holds root's rights while it looks the program up, and ``postgres
    --version`` needs nothing more, but initdb's library is looked for without them.
    """
    initdb = binary.with_name("initdb")
    return all(
        _succeeds([*way.prefix, *command])
        for command in (["test", "-x", str(folder)], [str(initdb), "--version"])
    )


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _refused(message: str) -> Precondition:
    return Precondition(
        message,
        reason="POSTGRES_ACCOUNT",
        remedy="Start as an ordinary user on a folder of its own, or pass --postgres DSN.",
    )
