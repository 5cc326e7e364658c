"""Reading small files below a root that tests may replace."""

from __future__ import annotations

from pathlib import Path


def text(root: Path, name: str) -> str:
    """A file's text without surrounding blanks and NULs, "" where it cannot be read."""
    try:
        return (root / name.lstrip("/")).read_text("utf-8", "replace").strip().strip("\0")
    except OSError:
        return ""


def number(root: Path, name: str) -> int | None:
    """A file's integer, or None where there is none (also for ``max``)."""
    try:
        return int(text(root, name))
    except ValueError:
        return None


def own_cgroups(root: Path) -> dict[str, str]:
    """The calling process's cgroup in each hierarchy; "" is the v2 tree."""
    found: dict[str, str] = {}
    for line in text(root, "proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def limits(root: Path, v1: str, name_v1: str, name_v2: str) -> list[str]:
    """A limit's text at each cgroup from the process's own up to the root, v1 and v2."""
    own = own_cgroups(root)
    places: list[tuple[str, str, str]] = []
    if v1 in own:
        places.append((f"sys/fs/cgroup/{v1}", own[v1], name_v1))
    if "" in own:
        places.append(("sys/fs/cgroup", own[""], name_v2))
    found: list[str] = []
    for base, path, name in places:
        parts = [part for part in path.split("/") if part and part != ".."]
        depths = range(len(parts), -1, -1)
        found += [text(root, "/".join([base, *parts[:depth], name])) for depth in depths]
    return [value for value in found if value]
