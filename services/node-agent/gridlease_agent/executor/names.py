"""What a name from the core may be, and how a file below a folder is opened without trust."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from gridlease_kernel.faults import Invalid

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def check(name: str) -> str:
    """The name, if a folder may be named so.

    >>> check("ls-1")
    'ls-1'

    Raises:
        Invalid: BAD_NAME.
    """
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"{name[:64]!r} is no name.", reason="BAD_NAME", field="lease_id")
    return name


def open_below(folder: int, path: str) -> int:
    """The regular file at ``path`` below an open folder; no step of it may be a link.

    Raises:
        Invalid: BAD_PATH. OSError: it is not there, or something else is.
    """
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        raise Invalid(f"{path[:64]!r} leads out of its folder.", reason="BAD_PATH", field="path")
    here = os.dup(folder)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
