"""The fixtures that every test may ask for; named in pyproject's ``addopts``.

postgres     session   a running PostgreSQL (``TestServer``)
database     function  the owner's DSN of a database of this test's own
nats         session   a running NATS server (``gridlease_mesh.embedded.EmbeddedNats``)
bus          function  a connection to it
state_folder function  an empty folder with a short path (sockets fit), removed afterwards

A test that does not ask for a server does not start one.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from gridlease_mesh.bus import Bus
    from gridlease_mesh.embedded import EmbeddedNats

    from .postgres import TestServer

_MNT_DETACH = 2
# Folders of tests whose files take long, the longest first: begun last, one of them would keep a
# single worker busy when all others are done.
_LONG = ("e2e", "docs", "chaos", "bench", "check", "escape", "sim", "integration", "property")


def pytest_configure() -> None:
    """Property tests are judged by what they find, never by how fast a busy machine is."""
    hypothesis.settings.register_profile("gridlease", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("gridlease")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What this host cannot offer is skipped, with the reason; long files go first."""
    items.sort(key=_rank)  # stable: within a folder as collected
    root = pytest.mark.skip(reason="needs root")
    gpu = pytest.mark.skip(reason="needs a real NVIDIA GPU")
    for item in items:
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(root)
        if shutil.which("nvidia-smi") is None and item.get_closest_marker("gpu"):
            item.add_marker(gpu)


def _rank(item: pytest.Item) -> int:
    folder = item.nodeid.split("/")[1] if item.nodeid.startswith("tests/") else ""
    return _LONG.index(folder) if folder in _LONG else len(_LONG)


def _short_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    folder.chmod(0o711)  # a server that had to drop to another account passes through
    return folder


@pytest.fixture
def state_folder() -> Iterator[Path]:
    """An empty folder whose path leaves room for a socket's name."""
    folder = _short_folder()
    yield folder
    unmounted(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_mount_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test's sandboxes mounted under its own folder goes with it, also after a kill."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None and os.geteuid() == 0:
        unmounted(folder)


def unmounted(folder: Path) -> None:
    """Detach every mount under ``folder``, the innermost first."""
    lines = Path("/proc/self/mounts").read_text("utf-8").splitlines()
    inside = [place for line in lines if (place := line.split()[1]).startswith(f"{folder}/")]
    libc = ctypes.CDLL(None)
    for place in reversed(inside):
        libc.umount2(place.encode(), _MNT_DETACH)


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """One real PostgreSQL for the whole session; GRIDLEASE_TEST_POSTGRES_BIN picks another."""
    module = importlib.import_module("gridlease_testkit.postgres")
    folder = _short_folder()
    bin_dir = os.environ.get("GRIDLEASE_TEST_POSTGRES_BIN")
    server = module.start_server(folder / "postgres", Path(bin_dir) if bin_dir else None)
    yield module.TestServer(server)
    server.stop(timeout_s=5.0)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database(postgres: TestServer) -> AsyncIterator[str]:
    """The owner's DSN of an empty database of this test's own, dropped afterwards."""
    name = await postgres.create()
    yield postgres.dsn(name)
    await postgres.drop(name)


@pytest.fixture(scope="session")
def nats() -> Iterator[EmbeddedNats]:
    """One real NATS server for the whole session."""
    module = importlib.import_module("gridlease_mesh.embedded")
    folder = _short_folder()
    server: EmbeddedNats = module.EmbeddedNats(folder / "nats")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def bus(nats: EmbeddedNats) -> AsyncIterator[Bus]:
    """A service's place on the mesh, named ``test``."""
    module = importlib.import_module("gridlease_mesh.bus")
    joined: Bus = await module.Bus.connect(nats.url, creds=nats.service_creds("test"), name="test")
    yield joined
    await joined.close()
