"""A sandbox under an image: what it sees, who it is, and what a hostile image cannot do."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.images.fetch import Fetcher
from gridlease_agent.images.roots import ImageRoots, Place
from gridlease_agent.runtimes.choose import bwrap_candidates, crun_candidate
from gridlease_agent.runtimes.secrets import SECRETS_PATH
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Absent, Deadline, Exit, Exited, Sandboxes
from gridlease_kernel.faults import Fault
from gridlease_testkit.registry import LoopbackRegistry, entry, tar_of
from gridlease_testkit.waiting import eventually_sync

pytestmark = [
    pytest.mark.root,
]
LIMIT = 512 << 20


class Rig:
    """One node's images and sandboxes."""

    def __init__(self, state: Path, name: str) -> None:
        found = crun_candidate() if name == "crun" else next(iter(bwrap_candidates()), None)
        if found is None:
            pytest.skip(f"{name} is not here")
        self.state = state
        self.roots = ImageRoots(state / "images", state / "leases", state / "blobs", LIMIT)
        self.fetcher = Fetcher(state / "blobs", self.roots, timeout_s=5.0)
        self.sandboxes = Sandboxes(state, found, roots=self.roots)
        self._count = 0

    def begin(self, name: str, script: str, **parts: object) -> str:
        digest = self.fetcher.pull(name)
        self._count += 1
        lease = f"ls-img{os.getpid()}-{self._count}"
        self.sandboxes.prepare(lease)
        root = self.roots.ready(digest, lease)
        spec = SandboxSpec(
            lease, ("/bin/sh", "-c", script), root=digest, user=root.user or 1000,
            environment_env=root.env, **parts,
        )  # fmt: skip
        self.sandboxes.start(lease, spec, Deadline.after(60_000, 0))
        return lease

    def end(self, lease: str) -> tuple[Exit, str]:
        def over() -> Exit | None:
            state = self.sandboxes.inspect(lease)
            return state.record if isinstance(state, Exited) else None

        record = eventually_sync(over, 20.0)
        folder = self.sandboxes.folder(lease)
        words = [folder / name for name in ("log", "runtime.log", "shim.log")]
        return record, "".join(x.read_text("utf-8", "replace") for x in words if x.exists())

    def run(self, name: str, script: str, **parts: object) -> tuple[Exit, str]:
        lease = self.begin(name, script, **parts)
        found = self.end(lease)
        self.sandboxes.remove(lease)
        return found

    def close(self) -> None:
        begun = [
            lease
            for lease in self.sandboxes.list()
            if not isinstance(self.sandboxes.inspect(lease), Absent)
        ]
        for lease in begun:
            self.sandboxes.kill(lease)
        for lease in begun:
            self.end(lease)
            self.sandboxes.remove(lease)
        self.roots.close()


@pytest.fixture(params=["crun", "bubblewrap"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def app(registry: LoopbackRegistry) -> str:
    return f"{registry.address}/team/app:v1"


def test_a_task_sees_the_image_and_nothing_of_the_host(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes
) -> None:
    more = tar_of(("etc/motd", b"from the image\n"), ("srv/data", b"x"))
    registry.add_image(shell, more, Env=["COLOUR=red", "HOME=/root", "GRIDLEASE_NODE=lie"])
    script = (
        "cat /etc/motd; echo colour=$COLOUR home=$HOME node=$GRIDLEASE_NODE; ls /;"
        "echo >/etc/x || echo read-only; echo y >/work/y && cat /work/y; id -u; pwd"
    )
    record, said = rig.run(app, script)
    assert record.exit_code == 0, said
    assert "from the image" in said
    assert "colour=red home=/work node=\n" in said
    assert "read-only" in said
    assert "\ny\n1000\n/work\n" in said
    assert not {"home", "root", "var", "boot"} & set(said.split())


def test_the_images_user_runs_and_root_never(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes
) -> None:
    users = tar_of(("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1234:99::/:/bin/sh\n"))
    for number, (who, uid) in enumerate((("app", 1234), ("77:5", 77), ("root", 1000), ("0", 1000))):
        registry.add_image(shell, users, tag=f"u{number}", User=who)
        script = "id -u; echo mine >/work/file && cat /work/file"
        record, said = rig.run(app.replace(":v1", f":u{number}"), script)
        assert (record.exit_code, said.split()[:2]) == (0, [str(uid), "mine"]), (who, said)


def test_an_image_without_a_shell_is_refused(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes
) -> None:
    for number, top in enumerate(
        (tar_of(("app", b"x")), tar_of(entry("bin/sh", tarfile.SYMTYPE, "/nowhere")),
         tar_of(entry("bin/sh", tarfile.DIRTYPE)), tar_of(("bin/sh", b"not executable")))
    ):  # fmt: skip
        registry.add_image(top, tag=f"n{number}")
        with pytest.raises(Fault) as caught:
            rig.begin(app.replace(":v1", f":n{number}"), "true")
        assert caught.value.reason == "IMAGE_WITHOUT_SHELL"
    registry.add_image(
        shell, tar_of(entry("bin", tarfile.SYMTYPE, "/usr/bin"), ("usr/bin/.wh.sh", b""))
    )


def _hostile(victim: Path) -> dict[str, bytes]:
    """Layers that try to reach the folder ``victim`` of the host, or to be more than they are."""
    links = [
        entry(name, tarfile.SYMTYPE, str(victim))
        for name in ("work", "run", "tmp", "proc", "dev", "sys", "opt", "etc")
    ]
    setuid = tarfile.TarInfo("usr/bin/up")
    setuid.mode = 0o6755
    files = [
        tar_of(*links),
        tar_of(*(entry(name, tarfile.REGTYPE) for name in ("work", "run", "proc", "dev", "tmp"))),
        tar_of(setuid, entry("disk", tarfile.BLKTYPE, numbers=(8, 0)),
               entry("mem", tarfile.CHRTYPE, numbers=(1, 1)),
               entry("hole", tarfile.CHRTYPE, numbers=(0, 0))),
        tar_of((".wh.work", b""), (".wh.run", b""), (".wh..wh..opq", b""), ("proc/.wh.self", b"")),
        tar_of(entry("etc/hosts", tarfile.SYMTYPE, str(victim / "hosts")),
               entry("etc/resolv.conf", tarfile.SYMTYPE, "/proc/1/environ"),
               entry("etc/passwd", tarfile.SYMTYPE, str(victim / "kept"))),
        tar_of(entry("run", tarfile.DIRTYPE), entry("run/gridlease", tarfile.SYMTYPE, str(victim)),
               entry("run/secrets", tarfile.SYMTYPE, str(victim))),
    ]  # fmt: skip
    return {f"h{number}": layer for number, layer in enumerate(files)}


def test_a_hostile_image_is_harmless(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    script = (
        "echo planted >/work/planted; echo planted >/run/x; echo planted >/etc/hosts;"
        f"cat {victim}/kept; cat /run/secrets/KEY; echo; for d in /disk /mem /hole; do"
        " cat $d >/dev/null 2>&1 && echo opened $d; done; ls -ln /usr/bin/up 2>/dev/null;"
        "cat /proc/self/status | while read a b; do test $a = Pid: && echo proc; done; exit 0"
    )
    for tag, layer in _hostile(victim).items():
        registry.add_image(shell, layer, tag=tag)
        lease = rig.begin(app.replace(":v1", f":{tag}"), script, secrets=(("KEY", "the-secret"),))
        record, said = rig.end(lease)
        assert record.exit_code == 0, (tag, said)
        seen = [word in said for word in ("the-secret", "proc", "opened", "\nkept")]
        assert seen == [True, True, False, False], (tag, said)
        assert sorted(x.name for x in victim.iterdir()) == ["kept"], tag
        work = rig.sandboxes.folder(lease) / "work"
        assert (work / "planted").read_text() == "planted\n", "its own folder, and no other"
        rig.sandboxes.remove(lease)


def test_places_of_devices_are_made_whatever_the_image_has_there(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes
) -> None:
    registry.add_image(shell, tar_of(entry("usr/vendor", tarfile.SYMTYPE, "/etc")))
    digest = rig.fetcher.pull(app)
    (rig.state / "leases" / "ls-a").mkdir(parents=True)
    places = (Place("/usr/vendor/lib", None), Place("/usr/vendor/conf", ""))
    root = Path(rig.roots.ready(digest, "ls-a", places).folder)
    assert (root / "usr/vendor/lib").is_dir()
    assert (root / "usr/vendor/conf").is_file()
    assert rig.roots.ready(digest, "ls-a").folder != str(root)
    assert rig.roots.ready(digest, "ls-a", places).folder == str(root), "mounted once"
    (rig.state / "leases" / "ls-a" / "image").unlink()
    (rig.state / "leases" / "ls-a").rmdir()


def test_an_image_in_use_stays_and_goes_with_its_last_lease(
    registry: LoopbackRegistry, shell: bytes, tmp_path: Path
) -> None:
    rig = Rig(tmp_path, "crun")
    name = f"{registry.address}/team/app"
    try:
        for number in range(2):
            registry.add_image(shell, tar_of(("n", bytes([number]) * 4096)), tag=f"v{number}")
        lease = rig.begin(f"{name}:v0", "sleep 30")
        first = rig.fetcher.pull(f"{name}:v0")
        rig.fetcher.pull(f"{name}:v1")
        rig.roots.store._limit_bytes = 1  # a node whose room has become small
        rig.roots.store.collect()
        assert rig.roots.store.held() == (first,)
        rig.sandboxes.kill(lease)
        rig.end(lease)
        rig.sandboxes.remove(lease)
        (rig.sandboxes.folder(lease) / "image").unlink()  # as when its folder is discarded
        rig.roots.store.collect()
        assert rig.roots.store.held() == ()
        assert list((tmp_path / "images/roots").iterdir()) == []
        assert list((tmp_path / "images/layers").iterdir()) == []
    finally:
        rig.close()


def test_a_tag_means_one_digest_to_all_of_a_job(registry: LoopbackRegistry, tmp_path: Path) -> None:
    roots = ImageRoots(tmp_path / "images", tmp_path / "leases", tmp_path / "blobs", LIMIT)
    fetcher = Fetcher(tmp_path / "blobs", roots, timeout_s=5.0)
    name = f"{registry.address}/team/app:v1"
    first = registry.add_image(tar_of(("a", b"1")))
    assert fetcher.pull(name, "jobs/one") == first
    second = registry.add_image(tar_of(("a", b"2")))
    fetcher = Fetcher(tmp_path / "blobs", roots, timeout_s=5.0)
    assert fetcher.pull(name, "jobs/one") == first, "also after a restart"
    assert fetcher.pull(name, "jobs/two") == second


def test_secrets_lie_in_memory_and_nowhere_else(
    rig: Rig, registry: LoopbackRegistry, app: str, shell: bytes
) -> None:
    registry.add_image(shell)
    canary = "canary-" + os.urandom(12).hex()
    script = (
        "cat /run/secrets/TOKEN >/dev/null && ls -ln /run/secrets; echo x >/run/secrets/new"
        " || echo refused; sleep 60"
    )
    lease = rig.begin(app, script, secrets=(("TOKEN", canary),))
    folder = rig.sandboxes.folder(lease)
    log = folder / "log"
    eventually_sync(lambda: log.exists() and "refused" in log.read_text(), 20.0)
    assert "-r-------- 1 1000" in (folder / "log").read_text()
    assert _found(rig.state, canary, skip=folder / "secrets") == []
    assert _told(canary) == []
    rig.sandboxes.kill(lease)
    rig.end(lease)
    rig.sandboxes.remove(lease)
    assert _found(rig.state, canary) == []
    assert not (folder / "secrets").exists()


def _found(state: Path, canary: str, skip: Path | None = None) -> list[str]:
    """Files under the node's state that hold the value."""
    found = []
    for parent, _, names in os.walk(state):
        for name in names:
            path = Path(parent) / name
            if path.is_fifo() or (skip is not None and skip in path.parents):
                continue
            if path.is_file() and canary.encode() in path.read_bytes():
                found.append(str(path))
    return found


def _told(canary: str) -> list[str]:
    """Processes whose environment or command line holds the value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            try:
                if canary.encode() in (folder / name).read_bytes():
                    found.append(str(folder / name))
            except OSError:
                continue
    return found


def test_the_place_of_secrets_is_known() -> None:
    assert SECRETS_PATH == "/run/secrets"
