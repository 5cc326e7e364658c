"""The static keeper under the address and undefined-behaviour sanitizers, through whole lives."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.keeper import build

from .conftest import Bench
from .test_life import *  # noqa: F403 - collected here again, with the sanitized keeper

pytestmark = pytest.mark.slow
# Leaks are no matter of a process that ends with its task; its parent watches it by ptrace's rules.
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fsanitize=address,undefined")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> build.Keeper:
    folder = tmp_path_factory.mktemp("sanitized")
    options = folder / "options.c"
    options.write_text(
        "const char *__asan_default_options(void);\n"
        'const char *__asan_default_options(void) { return "detect_leaks=0"; }\n'
    )
    compiler = build._compiler()
    if not compiler:
        pytest.skip("needs a C compiler")
    try:
        build.compile_to(compiler, folder / "keeper", (*_FLAGS, str(options)))
    except subprocess.CalledProcessError as trouble:
        pytest.skip(f"no sanitizers here: {trouble.stderr.decode()[:200]}")
    return build.Keeper(str(folder / "keeper"))


@pytest.fixture(params=["crun", "bubblewrap"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, sanitized: build.Keeper
) -> Iterator[Bench]:
    name = "crun_runtime" if request.param == "crun" else "bwrap_runtime"
    bench = Bench(tmp_path, request.getfixturevalue(name), sanitized)
    yield bench
    bench.close()
    for words in tmp_path.glob("leases/*/shim.log"):
        text = words.read_text("utf-8", "replace")
        assert "Sanitizer" not in text, text
        assert "runtime error" not in text, text
