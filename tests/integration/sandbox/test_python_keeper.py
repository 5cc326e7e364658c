"""The Python keeper, for hosts without a compiler: what matters most of a task's life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.keeper.build import Keeper

from .conftest import Bench
from .test_life import (  # noqa: F401 - collected here again, with the other keeper
    test_a_dead_deadline_never_starts,
    test_a_guard_killed_is_replaced_and_the_new_one_guards,
    test_a_shim_killed_takes_its_sandbox_along,
    test_an_extension_after_the_warning_takes_the_notice_back,
    test_exit_code_is_kept,
    test_kill_is_at_once,
    test_the_log_is_capped,
    test_the_notice_says_why_and_until_when,
    test_too_many_files_end_the_task,
)


@pytest.fixture(params=["crun", "bubblewrap"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    name = "crun_runtime" if request.param == "crun" else "bwrap_runtime"
    keeper = Keeper(why="the test asks for it")
    bench = Bench(tmp_path, request.getfixturevalue(name), keeper)
    yield bench
    bench.close()
