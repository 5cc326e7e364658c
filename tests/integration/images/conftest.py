"""Small images that can run: a shell out of this host's own files, and a registry for them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_testkit.registry import LoopbackRegistry, loopback_registry

PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/id", "/usr/bin/env", "/bin/sleep")


def shell_tar(*programs: str) -> bytes:
    """A layer with these programs and what they need to run."""
    wanted = set(programs or PROGRAMS)
    for program in list(wanted):
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        wanted |= set(re.findall(r"(/\S+)", told.stdout)) - {f"{program}:"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(wanted):
            real = os.path.realpath(path)
            if Path(real).is_file():
                info = tar.gettarinfo(real, arcname=path.lstrip("/"))
                info.mode, info.uid, info.gid = 0o755, 0, 0
                info.type = tarfile.REGTYPE
                info.size = Path(real).stat().st_size
                with Path(real).open("rb") as file:
                    tar.addfile(info, file)
    return out.getvalue()


@pytest.fixture(scope="session")
def shell() -> bytes:
    return shell_tar()


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    with loopback_registry() as served:
        yield served
