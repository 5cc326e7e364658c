"""What a job brings or leaves on purpose: links as outputs, a poisoned environment, hooks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.sandbox import Sandboxes
from gridlease_kernel.faults import Missing

from tests.escape.world import SECRET, World

_TRAPS = """
import os, socket
os.makedirs("out/inner")
open("out/honest", "w").write("honest")
for name, target in %(targets)r:
    os.symlink(target, "out/" + name)
os.symlink("honest", "out/relative")
os.symlink("/work/out", "out/inner/loop")
os.mkfifo("out/fifo")
socket.socket(socket.AF_UNIX).bind("out/socket")
for source in ("/etc/passwd", "/usr/bin/env", "/run/gridlease"):
    try:
        os.link(source, "out/hard-" + os.path.basename(source))
    except OSError:
        pass
"""


@pytest.fixture(params=["crun", "bubblewrap"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.getfixturevalue(
        "crun_runtime" if request.param == "crun" else "bwrap_runtime"
    )
    return found


def test_no_output_delivers_a_file_of_the_host(runtime: Runtime, state_folder: Path) -> None:
    state = state_folder / "state"
    place = World(Sandboxes(state, runtime), 60.0)
    files = LeaseFiles(state, kept_bytes=1 << 30, kept_hours=1)
    (state / "node.key").write_text(SECRET)
    targets = [
        ("shadow", "/etc/shadow"), ("key", str(state / "node.key")), ("etc", "/etc"),
        ("up", "../../../../node.key"), ("state", str(state)), ("root", "/"),
        ("self", "/proc/self/environ"),
    ]  # fmt: skip
    lease_id = place.start(_TRAPS % {"targets": targets}, {}, 6)
    assert place.ended(lease_id).record.exit_code == 0, place.log(lease_id)
    names = [*(f"out/{name}" for name, _target in targets), "out", "out/*", "*", "../../node.key"]
    artefacts = files.keep(lease_id, [*names, "/etc/shadow", "out/etc/shadow"])
    place.sandboxes.remove(lease_id)
    files.discard(lease_id)
    assert {one.path for one in artefacts} == {"out/honest", "main.py"}
    kept = [path for path in (state / "kept").rglob("*") if not path.is_dir()]
    assert not [path for path in kept if path.is_symlink() or SECRET in path.read_text()]
    assert (state / "node.key").read_text() == SECRET
    assert Path("/etc/shadow").exists()
    for name in ("out/key", "../../../node.key", "/etc/shadow", "out/../../../exit.json"):
        with pytest.raises(Missing):
            files.open_artefact(lease_id, name)


def test_a_folder_swapped_for_a_link_scrubs_nothing_else(
    runtime: Runtime, state_folder: Path
) -> None:
    state, precious = state_folder / "state", state_folder / "precious"
    precious.mkdir(mode=0o755)
    (precious / "file").write_text("stays")
    place = World(Sandboxes(state, runtime), 60.0)
    source = f"import os; os.symlink({str(precious)!r}, 'out'); os.symlink('/', 'scratch')"
    lease_id = place.start(source, {}, 6, keep=("out", "scratch/etc"))
    place.ended(lease_id)
    place.sandboxes.remove(lease_id)
    assert (precious / "file").read_text() == "stays"
    assert Path("/etc/passwd").exists()
    assert list((place.sandboxes.folder(lease_id) / "work").iterdir()) == []


def test_a_poisoned_environment_stays_inside(runtime: Runtime, state_folder: Path) -> None:
    """Source: CVE-2025-23266, where a hook of the host inherited the image's LD_PRELOAD."""
    state, token = state_folder / "state", state_folder / "token"
    place = World(Sandboxes(state, runtime), 60.0)
    evil = f"open({str(token)!r}, 'w').write('escaped')\n"
    poison = {
        "LD_PRELOAD": "/work/evil.so", "LD_LIBRARY_PATH": "/work", "PYTHONPATH": "/work",
        "PYTHONHOME": "/work", "BASH_ENV": "/work/evil.sh", "ENV": "/work/evil.sh",
        "GCONV_PATH": "/work", "PATH": "/work:/usr/bin:/bin", "HOME": "/work",
    }  # fmt: skip
    hooks = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {token}"]}]}
    brought = {
        "evil.so": "no library", "evil.sh": f"touch {token}\n", "sitecustomize.py": evil,
        "shim.py": evil, "json.py": evil, "config.json": json.dumps({"hooks": hooks}),
    }  # fmt: skip
    lease_id = place.start("import signal; signal.pause()", brought, 6, env=tuple(poison.items()))
    place.says(lease_id, "LD_PRELOAD")  # inside it is obeyed: the loader says that it cannot
    folder = place.sandboxes.folder(lease_id)
    keeper = shim.read_json(str(folder / "shim.json")) or {}
    environ = Path(f"/proc/{keeper['pid']}/environ").read_bytes()
    maps = Path(f"/proc/{keeper['pid']}/maps").read_text()
    plan = json.loads((folder / "spec.json").read_text())
    place.close()
    assert b"evil" not in environ
    assert b"/work" not in environ.replace(os.fsencode(Path.cwd()), b"")
    assert "evil" not in maps
    for name in ("shim.log", "runtime.log"):
        path = folder / name
        assert not path.exists() or "LD_PRELOAD" not in path.read_text(), path.read_text()
    assert "hooks" not in (plan["oci"] or {})
    assert not token.exists()
