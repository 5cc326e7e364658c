"""Which addresses a webhook may have, how it is signed, and how often it is tried."""

import base64
import hashlib
import hmac

import pytest
from gridlease_gateway.domain.webhooks import (
    MOST_TRIES,
    is_public,
    pause_s,
    pick,
    secret_text,
    signature,
    target_of,
    wanted,
)
from gridlease_kernel.faults import Invalid

HOSTILE_URLS = [
    "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://x/", "//x/",
    "https://", "https:///x", "https://user@example.com/", "https://user:pw@example.com/",
    "https://example.com@127.0.0.1/", "https://example.com:22/", "https://example.com:80/",
    "https://example.com:99999/", "https://example.com:-1/", "https://example.com:x/",
    "https://example.com/#f", "https://exa mple.com/", "https://example.com/\r\nHost: x",
    "https://example.com\\@127.0.0.1/", "https://例え.jp/", "javascript:alert(1)", "https",
    "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/",
]  # fmt: skip
NOT_PUBLIC = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2001:0:1::1", "nonsense", "",
    "2130706433", "0x7f.1", "127.1", "017700000001",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_a_hostile_url_is_refused(url):
    with pytest.raises(Invalid) as caught:
        target_of(url, local=False)
    assert caught.value.reason == "WEBHOOK_URL_REFUSED"


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_condemns_the_name(address):
    assert not is_public(address)
    with pytest.raises(Invalid):
        pick(["93.184.216.34", address], local=False)


def test_what_is_public_is_called():
    for address in ("93.184.216.34", "1.1.1.1", "2606:2800:220:1::1", "::ffff:8.8.8.8"):
        assert pick([address], local=False) == address
    target = target_of("https://example.com/hook?x=1", local=False)
    assert (target.host, target.port, target.path) == ("example.com", 443, "/hook?x=1")
    assert target_of("http://127.0.0.1:99/", local=True).port == 99
    with pytest.raises(Invalid):
        pick([], local=True)


def test_the_signature_is_that_of_standard_webhooks():
    secret = bytes(range(32))
    key = base64.b64decode(secret_text(secret).removeprefix("whsec_"))
    right = base64.b64encode(hmac.new(key, b"m.5.{}", hashlib.sha256).digest()).decode()
    assert signature(secret, "m", 5, b"{}") == f"v1,{right}"
    assert signature(secret, "m", 6, b"{}") != f"v1,{right}"


def test_patience_is_about_half_a_day_and_ends():
    total = sum(pause_s(n) for n in range(1, MOST_TRIES))  # the last failure is not waited after
    assert 12 * 3_600 < total < 24 * 3_600


def test_types_are_chosen_by_their_beginnings():
    assert wanted((), "job.failed")
    assert wanted(("budget.", "job."), "job.failed")
    assert not wanted(("budget.",), "job.failed")
