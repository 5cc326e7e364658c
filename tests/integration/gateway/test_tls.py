"""The door over TLS: a client that trusts the authority comes in, another does not."""

import asyncio
import dataclasses
import shutil
import subprocess

import pytest
from gridlease_gateway.bootstrap import gateway
from gridlease_kernel.faults import Precondition, Unreachable
from gridlease_sdk import Client

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not here"
)


def certificate(folder):
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return key, cert


async def test_tls(world, tmp_path):
    key, cert = await asyncio.to_thread(certificate, tmp_path)
    settings = dataclasses.replace(world.settings, gateway_tls_cert=cert, gateway_tls_key=key)
    async with gateway(settings) as door:
        secret = world.keys["tenant_key"]
        endpoint = f"https://127.0.0.1:{door.port}"
        async with Client.connect(endpoint, secret, ca_file=cert) as client:
            assert (await client.caller()).project == "projects/demo"
        async with Client.connect(endpoint, secret, patience_s=0.5) as stranger:
            with pytest.raises(Unreachable):
                await stranger.caller()
        async with Client.connect(f"127.0.0.1:{door.port}", secret, patience_s=0.5) as plain:
            with pytest.raises(Unreachable):
                await plain.caller()


@pytest.mark.parametrize("given", [("cert", "key"), ("cert",), ("key",)])
async def test_tls_files_that_are_not_there(world, tmp_path, given):
    named = {f"gateway_tls_{it}": tmp_path / "none" for it in given}
    settings = dataclasses.replace(world.settings, **named)
    with pytest.raises(Precondition) as caught:
        async with gateway(settings):
            pass
    assert caught.value.reason == "TLS_FILES"
