"""Credentials that end: expired, renewed, revoked; and TLS. On a real broker."""

import asyncio
import shutil
import ssl
import subprocess

import pytest
from gridlease_kernel.faults import Unauthenticated, Unreachable
from gridlease_mesh import credentials
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import Authority, UserSigner, claims_of
from gridlease_mesh.embedded import EmbeddedNats, Tls

SOON_S = 10.0


@pytest.fixture
def broker(state_folder):
    server = EmbeddedNats(state_folder / "nats")
    server.start()
    yield server
    server.stop()


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON_S)


async def node(broker, folder, node_id, **options):
    """A node on the mesh: its bus, its public key, its credentials file."""
    seed, public = credentials.new_user_key()
    path = folder / f"{node_id}.creds"
    credentials.write_creds(path, broker.authority.mint_node_user(node_id, public), seed)
    bus = await Bus.connect(broker.url, creds=path, name="agent", node_id=node_id, **options)
    return bus, public, path


async def test_a_revoked_node_is_cut_off_and_no_other(broker, tmp_path):
    bad, public, path = await node(broker, tmp_path, "n-bad")
    good, _, _ = await node(broker, tmp_path, "n-good")
    lost, harmed = asyncio.Event(), asyncio.Event()
    bad.on_disconnected(lost.set)
    good.on_disconnected(harmed.set)
    assert not broker.refresh()
    UserSigner(broker.authority.signing_seed).revoke(public)  # as the scheduler does
    assert broker.refresh()
    await soon(lost.wait())
    await bad.close()
    with pytest.raises(Unauthenticated):
        await Bus.connect(broker.url, creds=path, name="agent", node_id="n-bad", timeout_s=0.7)
    await good.flush()
    assert not harmed.is_set()
    assert not broker.refresh()
    await good.close()
    assert Authority(broker.folder / "keys").operator_token() == broker.authority.operator_token()
    broker.stop()  # it stays revoked
    broker.start()
    with pytest.raises(Unauthenticated):
        await Bus.connect(broker.url, creds=path, name="agent", node_id="n-bad", timeout_s=0.7)


async def test_a_revoked_node_may_join_again_with_a_new_key(broker, tmp_path):
    bad, public, _ = await node(broker, tmp_path, "n-1")
    await bad.close()
    broker.authority.signer.revoke(public)
    assert broker.refresh()
    again, _, _ = await node(broker, tmp_path, "n-1")
    await again.flush()
    await again.close()


def test_a_signing_key_stands_for_its_account_alone(tmp_path):
    authority = Authority(tmp_path / "keys")
    _, public = credentials.new_user_key()
    claims = claims_of(authority.signer.node("n-1", public, 60))
    assert claims["nats"]["issuer_account"] == authority.account_public_key
    assert claims["iss"] != authority.account_public_key
    assert claims["exp"] - claims["iat"] == 60
    assert claims["sub"] == public


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority of our own and a certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine to make certificates with")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=test", "-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1"]  # fmt: skip

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", *subject)
    openssl("req", "-new", "-keyout", "nats.key", "-out", "nats.csr", *subject)
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "nats.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1",
            "-CAcreateserial", "-extfile", "san", "-out", "nats.pem")  # fmt: skip
    return folder


@pytest.fixture
def tls_broker(state_folder, certificates):
    tls = Tls(certificates / "nats.pem", certificates / "nats.key")
    server = EmbeddedNats(state_folder / "nats", tls=tls)
    server.start()
    yield server
    server.stop()


async def test_the_mesh_speaks_tls(tls_broker, certificates, monkeypatch):
    assert tls_broker.url.startswith("tls://")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    creds = tls_broker.service_creds("test")
    async with await Bus.connect(tls_broker.url, creds=creds, name="test") as bus:
        await bus.flush()


async def test_a_client_verifies_the_server(tls_broker, certificates, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "other.pem"))
    creds = tls_broker.service_creds("test")
    with pytest.raises((Unreachable, ssl.SSLError)):
        await Bus.connect(tls_broker.url, creds=creds, name="test", timeout_s=0.7)


async def test_without_tls_nobody_gets_in(tls_broker):
    creds = tls_broker.service_creds("test")
    plain = tls_broker.url.replace("tls://", "nats://")
    with pytest.raises((Unreachable, ssl.SSLError)):
        await Bus.connect(plain, creds=creds, name="test", timeout_s=0.7)


def test_tokens_never_travel_in_the_clear(state_folder):
    with pytest.raises(AssertionError, match="only with TLS"):
        EmbeddedNats(state_folder / "nats", host="0.0.0.0")
