"""Images from a loopback registry, unpacked by real programs, stacked by the kernel."""

from __future__ import annotations

import ctypes
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.images import reference
from gridlease_agent.images.fetch import Fetcher
from gridlease_agent.images.roots import ImageRoots
from gridlease_agent.images.store import Held, ImageStore
from gridlease_agent.images.tasks import TaskImages
from gridlease_kernel.faults import Fault
from gridlease_testkit.registry import (
    INDEX,
    LoopbackRegistry,
    entry,
    loopback_registry,
    tar_of,
)

pytestmark = [
    pytest.mark.root,
]
LIMIT = 64 << 20


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    with loopback_registry() as served:
        yield served


def _pull(store: ImageStore, registry: LoopbackRegistry, version: str = ":v1") -> Held:
    return store.get(_fetcher(store).pull(f"{registry.address}/team/app{version}"))


class _Node(ImageRoots):
    """The store of a test behind the verbs that a fetcher knows."""

    def __init__(self, store: ImageStore) -> None:
        blobs = store.folder.parent / "blobs"
        super().__init__(store.folder, store.folder.parent / "leases", blobs, LIMIT)
        self.store = store


def _fetcher(store: ImageStore, machine: str = "x86_64") -> Fetcher:
    blobs = store.folder.parent / "blobs"
    return Fetcher(blobs, _Node(store), machine=machine, timeout_s=5.0)


def _reason(store: ImageStore, registry: LoopbackRegistry, version: str = ":v1") -> str:
    with pytest.raises(Fault) as caught:
        _pull(store, registry, version)
    assert caught.value.remedy
    return caught.value.reason


_LIBC = ctypes.CDLL(None, use_errno=True)


class _Stacked:
    """The image's folders as one, by overlayfs, in a folder of the test."""

    def __init__(self, held: Held, folder: Path) -> None:
        self.root = folder / "merged"
        for name in ("merged", "upper", "work"):
            (folder / name).mkdir()
        lowers = ":".join(map(str, held.lowers))
        options = f"lowerdir={lowers},upperdir={folder}/upper,workdir={folder}/work"
        done = _LIBC.mount(b"overlay", str(self.root).encode(), b"overlay", 0, options.encode())
        if done != 0:
            pytest.skip(f"overlayfs cannot be mounted here (errno {ctypes.get_errno()})")

    def __enter__(self) -> Path:
        return self.root

    def __exit__(self, *_: object) -> None:
        assert _LIBC.umount2(str(self.root).encode(), 2) == 0


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_layers_stack_and_whiteouts_hide(
    tmp_path: Path, registry: LoopbackRegistry, compression: str
) -> None:
    low = tar_of(("etc/a", b"1"), ("etc/b", b"2"), ("opt/old/x", b"3"), ("bin/tool", b"4"))
    top = tar_of(
        ("etc/.wh.b", b""), ("etc/a", b"one"), ("opt/old/.wh..wh..opq", b""), ("opt/old/y", b"5")
    )
    digest = registry.add_image(low, top, compression=compression, Env=["A=1"], Cmd=["tool"])
    store = ImageStore(tmp_path / "store", LIMIT)
    held = _pull(store, registry)
    assert (held.image.digest, held.image.env, held.image.cmd) == (digest, ("A=1",), ("tool",))
    (tmp_path / "stack").mkdir()
    with _Stacked(held, tmp_path / "stack") as root:
        assert (root / "etc/a").read_bytes() == b"one"
        assert not (root / "etc/b").exists()
        assert sorted(path.name for path in (root / "opt/old").iterdir()) == ["y"]
        assert (root / "bin/tool").read_bytes() == b"4"


def test_an_image_here_is_not_asked_for_again_and_layers_are_shared(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    base, one, two = tar_of(("base", b"b")), tar_of(("one", b"1")), tar_of(("two", b"2"))
    digest = registry.add_image(base, one, tag="v1")
    registry.add_image(base, two, tag="v2")
    store = ImageStore(tmp_path, LIMIT)
    first = _pull(store, registry)
    registry.asked.clear()
    assert _pull(store, registry, f"@{digest}") == first
    assert registry.asked == []
    second = _pull(store, registry, ":v2")
    assert second.lowers[1] == first.lowers[1]
    assert sum("/blobs/" in path for path in registry.asked) == 2, "configuration and one layer"
    assert ImageStore(tmp_path, LIMIT).get(digest) == first, "a new agent finds it"


def test_an_index_is_resolved_for_this_machine(tmp_path: Path, registry: LoopbackRegistry) -> None:
    mine = registry.add_image(tar_of(("x", b"1")), tag="mine")
    other = registry.add_image(tar_of(("x", b"2")), tag="other")
    entries = [
        {"digest": other, "platform": {"os": "linux", "architecture": "s390x"}},
        {"digest": mine, "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    registry.add_manifest({"manifests": entries}, INDEX, "v1")
    name = f"{registry.address}/team/app:v1"
    found = _fetcher(ImageStore(tmp_path / "a", LIMIT), "aarch64").pull(name)
    assert found == mine
    assert _reason(ImageStore(tmp_path / "b", LIMIT), registry) == "NO_IMAGE_FOR_PLATFORM"


def test_a_token_is_fetched_where_one_is_asked_for(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    registry.add_image(tar_of(("x", b"1")))
    registry.token = "secret"
    _pull(ImageStore(tmp_path, LIMIT), registry)
    token = next(path for path in registry.asked if path.startswith("/token"))
    assert "scope=repository%3Ateam%2Fapp%3Apull" in token


def test_what_is_not_what_it_says_is_refused_and_leaves_nothing(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    store = ImageStore(tmp_path, LIMIT)
    digest = registry.add_image(tar_of(("x", b"1")))
    layer = max(registry.blobs, key=lambda key: registry.blobs[key].startswith(b"\x1f\x8b"))
    whole = registry.blobs[layer]
    for wrong in (whole[:-1], whole + b"x", whole[:-1] + b"\1"):
        registry.blobs[layer] = wrong
        assert _reason(store, registry) == "IMAGE_CORRUPT"
    registry.blobs[layer] = whole
    registry.manifests[digest] = ("x", b"{}")
    assert _reason(store, registry, f"@{digest}") == "IMAGE_CORRUPT"
    assert list((tmp_path / "layers").iterdir()) == []
    assert store.held() == ()


def test_trouble_is_named(tmp_path: Path, registry: LoopbackRegistry) -> None:
    store = ImageStore(tmp_path, LIMIT)
    registry.add_image(tar_of(("x", b"1")))
    assert _reason(store, registry, ":absent") == "IMAGE_NOT_FOUND"
    for status, reason in (
        (403, "IMAGE_FORBIDDEN"),
        (503, "REGISTRY_AWAY"),
        (429, "REGISTRY_AWAY"),
    ):
        registry.faults["/manifests/v1"] = status
        assert _reason(store, registry) == reason
    big = tar_of(("big", bytes(2 << 20)))
    registry.add_image(big, tag="big")
    assert _reason(ImageStore(tmp_path / "small", 1 << 20), registry, ":big") == "IMAGE_TOO_LARGE"
    with pytest.raises(Fault) as caught:
        _fetcher(store).pull("127.0.0.1:9/a:b")
    assert caught.value.reason == "REGISTRY_AWAY"


def test_a_hostile_layer_reaches_nothing_outside_its_folder(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    evil = tar_of(
        entry("way", tarfile.SYMTYPE, str(victim)),
        ("way/planted", b"evil"),
        ("../escaped", b"evil"),
        entry("null", tarfile.CHRTYPE, numbers=(1, 3)),
        entry("disk", tarfile.BLKTYPE, numbers=(8, 0)),
        (".wh...", b""),
    )
    over = tar_of(entry("etc", tarfile.SYMTYPE, str(victim)))
    after = tar_of(("etc/planted", b"evil"), ("etc/.wh.kept", b""))
    store = ImageStore(tmp_path / "store", LIMIT)
    registry.add_image(over, after, tag="v1")
    _pull(store, registry)
    registry.add_image(evil, tag="v2")
    assert _reason(store, registry, ":v2") == "LAYER_CORRUPT"
    registry.add_image(
        tar_of(
            entry("null", tarfile.CHRTYPE, numbers=(1, 3)),
            entry("disk", tarfile.BLKTYPE, numbers=(8, 0)),
            (".wh...", b""),
        ),
        tag="v3",
    )
    held = _pull(store, registry, ":v3")
    assert list(held.lowers[0].iterdir()) == []
    assert sorted(path.name for path in victim.iterdir()) == ["kept"]
    assert not (tmp_path / "store/layers/escaped").exists()


def test_the_least_recently_used_leaves_and_what_is_used_stays(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    shared = tar_of(("shared", bytes(1 << 20)))
    digests = [
        registry.add_image(shared, tar_of((f"f{n}", bytes([n]) * (1 << 20))), tag=f"v{n}")
        for n in range(4)
    ]
    used: set[str] = set()
    store = ImageStore(tmp_path, 4 * (1 << 20) + (1 << 17), lambda: used)
    for n in range(3):
        _pull(store, registry, f":v{n}")
    store.get(digests[0])
    used.add(digests[2])
    _pull(store, registry, ":v3")
    assert set(store.held()) == {digests[0], digests[2], digests[3]}
    assert len(list((tmp_path / "layers").iterdir())) == 4, "three and the one they share"


@pytest.mark.parametrize(
    "name",
    ["", "app", "team/app", "reg.example/", "reg.example/UP", "reg.example/a@sha256:1",
     "reg.example/a:", "reg.example/a:-x", "http://reg.example/a", "reg.example/a b"],
)  # fmt: skip
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(Fault) as caught:
        reference.parse(name + ("?" if name.endswith(":") else ""))
    assert caught.value.reason == "BAD_IMAGE_NAME"


async def test_a_node_that_starts_again_knows_all_its_images(
    tmp_path: Path, registry: LoopbackRegistry
) -> None:
    store = ImageStore(tmp_path / "images", LIMIT)
    digest = registry.add_image(tar_of(("a", b"x")))
    name = f"{registry.address}/team/app:v1"
    assert await TaskImages(_fetcher(store), _Node(store)).fetch(name) == digest
    again = ImageStore(tmp_path / "images", LIMIT)
    assert await TaskImages(_fetcher(again), _Node(again)).held() == (digest, name)
