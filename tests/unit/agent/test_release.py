"""Which release may be taken, and how slots change hands."""

import base64
import io
import json
import tarfile

import pytest
from gridlease_agent.update.manifest import checked, signed_text
from gridlease_agent.update.slots import Slots
from gridlease_kernel.faults import Fault
from nacl.signing import SigningKey

KEY = SigningKey(b"k" * 32)
PINNED = base64.b64encode(bytes(KEY.verify_key)).decode()
NOW_S = 1_000_000


def manifest(key=KEY, **changed):
    said = {
        "product": "gridlease-agent",
        "version": "1.1",
        "number": 2,
        "expires_s": NOW_S + 1,
        "archive": {"sha256": "0" * 64, "size_bytes": 1},
        **changed,
    }
    raw = json.dumps(said).encode()
    return raw, key.sign(signed_text(raw)).signature


def refusal(raw, signature, keys=(PINNED,), highest=1):
    with pytest.raises(Fault) as caught:
        checked(raw, signature, keys, NOW_S, highest)
    return caught.value.reason


def test_a_signed_newer_release_is_taken():
    raw, signature = manifest()
    found = checked(raw, signature, ["nonsense", "", PINNED], NOW_S, 1)
    assert (found.version, found.number) == ("1.1", 2)


def test_what_nobody_trusted_has_signed_is_refused():
    raw, signature = manifest()
    assert refusal(raw + b" ", signature) == "RELEASE_NOT_SIGNED"
    assert refusal(raw, signature[:-1] + b"\0") == "RELEASE_NOT_SIGNED"
    assert refusal(raw, b"") == "RELEASE_NOT_SIGNED"
    assert refusal(raw, signature, keys=()) == "RELEASE_NOT_SIGNED"
    assert refusal(*manifest(SigningKey(b"x" * 32))) == "RELEASE_NOT_SIGNED"
    bare = KEY.sign(raw).signature  # the key's word on something else
    assert refusal(raw, bare) == "RELEASE_NOT_SIGNED"


def test_older_and_same_releases_are_refused():
    assert refusal(*manifest(), highest=2) == "RELEASE_OLDER"
    assert refusal(*manifest(number=1), highest=2) == "RELEASE_OLDER"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"expires_s": NOW_S}, "RELEASE_EXPIRED"),
        ({"product": "other"}, "RELEASE_MALFORMED"),
        ({"number": 0}, "RELEASE_MALFORMED"),
        ({"version": ""}, "RELEASE_MALFORMED"),
        ({"archive": {}}, "RELEASE_MALFORMED"),
        ({"archive": "x"}, "RELEASE_MALFORMED"),
    ],
)
def test_a_signed_release_may_still_be_wrong(changed, reason):
    assert refusal(*manifest(**changed)) == reason


def packed(tmp_path, name, content, link=""):
    archive = tmp_path / "agent.tar"
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        if link:
            info.type, info.linkname, info.size = tarfile.SYMTYPE, link, 0
        file.addfile(info, io.BytesIO(content))
    return archive


def release_of(archive, number):
    import hashlib

    raw = archive.read_bytes()
    said = {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    text, signature = manifest(number=number, version=f"1.{number}", archive=said)
    return checked(text, signature, [PINNED], NOW_S, number - 1)


def test_slots_take_turns_and_remember_the_highest(tmp_path):
    slots = Slots(tmp_path / "home")
    assert (slots.current(), slots.other()) == ("", "a")
    first = packed(tmp_path, "lib/x", b"one")
    assert slots.install(release_of(first, 1), first) == "a"
    slots.switch("a")
    second = packed(tmp_path, "lib/x", b"two")
    assert slots.install(release_of(second, 2), second) == "b"
    assert slots.current() == "a"
    assert (slots.home / "a/lib/x").read_bytes() == b"one"
    slots.switch("b")
    assert (slots.home / "current/lib/x").read_bytes() == b"two"
    record = Slots(tmp_path / "home").read()
    assert (record.highest, record.wanted, record.versions) == (2, "b", {"a": "1.1", "b": "1.2"})
    assert slots.command("b")[1] == {"PYTHONPATH": str(slots.home / "b/lib")}


def test_another_archive_than_the_signed_one_is_refused(tmp_path):
    slots = Slots(tmp_path / "home")
    archive = packed(tmp_path, "lib/x", b"one")
    release = release_of(archive, 1)
    other = packed(tmp_path, "lib/x", b"two")
    with pytest.raises(Fault) as caught:
        slots.install(release, other)
    assert caught.value.reason == "RELEASE_DAMAGED"
    assert slots.read().highest == 0


@pytest.mark.parametrize(("name", "link"), [("../x", ""), ("/x", ""), ("lib", "/etc")])
def test_an_archive_stays_in_its_slot(tmp_path, name, link):
    slots = Slots(tmp_path / "home")
    archive = packed(tmp_path, name, b"", link)
    try:
        slots.install(release_of(archive, 1), archive)
    except tarfile.FilterError:
        assert slots.read().highest == 0
    assert not (tmp_path / "x").exists()
    assert not (slots.home / "x").exists()
    assert not (slots.home / "a" / "lib").is_symlink()
