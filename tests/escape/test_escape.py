"""Every probe of the table, under each runtime: none gets out."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from tests.escape.probes import load
from tests.escape.world import leaks, trapped, world


@pytest.mark.parametrize("name", ["crun", "bubblewrap"])
def test_nothing_leaks(request: pytest.FixtureRequest, state_folder: Path, name: str) -> None:
    fixture = "crun_runtime" if name == "crun" else "bwrap_runtime"
    runtime = request.getfixturevalue(fixture)
    with world(state_folder, runtime) as place:
        found = place.attack([trapped(state_folder / "data", place.sandboxes.folder(".."))])
    leaked = leaks(found, name)
    assert not leaked, "\n".join(leaked)
    assert len(found) >= 380


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_table_is_wide(arch: str) -> None:
    kinds = collections.Counter(probe.kind for probe in load(arch, {}))
    assert sum(kinds.values()) >= 380
    assert min(kinds.values()) >= 20
    assert len(kinds) >= 7
