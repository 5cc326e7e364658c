"""The operator's tools: keys and tokens as files, templates into configurations."""

import stat
import subprocess

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_mesh import ca, topology
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import Authority, claims_of, new_user_key, revocations
from gridlease_mesh.embedded import EmbeddedNats, find_binary
from gridlease_mesh.permissions import role_permissions

from tests.integration.edge.brokers import TEMPLATES


@pytest.fixture
def keys(tmp_path, capsys):
    assert ca.main(["init", str(tmp_path / "keys")]) == 0
    assert capsys.readouterr().out.startswith("A")
    return tmp_path / "keys"


def said(capsys, *words):
    assert ca.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def token_in(path):
    return path.read_text().splitlines()[1]


def test_keys_are_made_once_and_kept_private(keys, capsys):
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}
    assert ca.main(["init", str(keys)]) == 2
    assert "holds the keys" in capsys.readouterr().err
    assert ca.main(["broker", str(keys / "nowhere")]) == 2
    assert "holds no keys" in capsys.readouterr().err


def test_what_a_broker_includes_holds_no_secret(keys, capsys):
    text = said(capsys, "broker", keys)
    for seed in keys.glob("*.seed"):
        assert seed.read_text().strip() not in text
    assert Authority(keys).account_public_key in text


def test_a_rooms_token_says_what_its_role_may(keys, capsys, tmp_path):
    path = keys / "role-billing.creds"
    assert said(capsys, "role", keys, "billing", "--ttl-s", 60).strip() == str(path)
    claims = claims_of(token_in(path))
    allowed = role_permissions("billing")
    assert tuple(claims["nats"]["pub"]["allow"]) == allowed.publish
    assert tuple(claims["nats"]["sub"]["allow"]) == allowed.subscribe
    assert claims["exp"] == claims["iat"] + 60
    again = claims["sub"]
    said(capsys, "role", keys, "billing")
    renewed = claims_of(token_in(path))
    assert renewed["sub"] == again
    assert "exp" not in renewed
    assert ca.main(["role", str(keys), "nobody"]) == 2
    assert "no role" in capsys.readouterr().err


def test_a_factory_speaks_for_its_nodes(keys, capsys):
    said(capsys, "leaf", keys, "factory-1", "n-1", "n-2")
    allowed = claims_of(token_in(keys / "leaf-factory-1.creds"))["nats"]["pub"]["allow"]
    assert {subject.split(".")[2] for subject in allowed} == {"n-1", "n-2"}
    with pytest.raises(Invalid):
        topology.leaf_permissions([], "gl")


def test_nodes_by_hand_and_revocation(keys, capsys):
    _, public = new_user_key()
    claims = claims_of(said(capsys, "node", keys, "n-1", public, "--ttl-s", 9).strip())
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (public, 9)
    said(capsys, "revoke", keys, public)
    assert list(revocations(keys / "revoked.json")) == [public]
    account = Authority(keys).account_tokens()[Authority(keys).account_public_key]
    assert list(claims_of(account)["nats"]["revocations"]) == [public]
    assert ca.main(["revoke", str(keys), "not a key"]) == 2


async def test_a_broker_accepts_what_was_made_offline(state_folder, capsys):
    said(capsys, "init", state_folder / "nats" / "keys")
    said(capsys, "role", state_folder / "nats" / "keys", "gateway")
    creds = state_folder / "nats" / "keys" / "role-gateway.creds"
    with EmbeddedNats(state_folder / "nats") as broker:
        async with await Bus.connect(broker.url, creds=creds, name="gateway") as bus:
            await bus.flush()


VALUES = {
    "NAME": "n1",
    "LISTEN": "127.0.0.1:4222",
    "MONITOR": "127.0.0.1:8222",
    "STORE": "store",
    "ROUTE": "127.0.0.1:6222",
    "ROUTES": topology.listed(["nats://route:secret@10.0.0.2:6222"]),
    "ROUTE_PASSWORD": "secret",
    "LEAF": "127.0.0.1:7422",
    "HUB": topology.listed(["nats-leaf://10.0.0.1:7422", "nats-leaf://10.0.0.2:7422"]),
    "ACCOUNT": "",
    "CREDENTIALS": "leaf.creds",
}


@pytest.mark.parametrize("name", ["cluster.conf", "leaf.conf"])
def test_a_template_is_rendered_and_nats_reads_it(keys, tmp_path, capsys, name):
    text = (TEMPLATES / name).read_text()
    account = Authority(keys).account_public_key
    values = {**VALUES, "ACCOUNT": account}
    words = [f"{it}={values[it]}" for it in sorted(topology.placeholders(text))]
    assert topology.main([str(TEMPLATES / name), *words]) == 0
    config = tmp_path / "nats.conf"
    config.write_text(capsys.readouterr().out)
    (tmp_path / "trust.conf").write_text(said(capsys, "broker", keys))
    command = [str(find_binary()), "-t", "-c", str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "is valid" in ran.stderr + ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "has no value"),
        (["NAME=a", "EXTRA=b"], "has no EXTRA"),
        (['NAME=a" } evil {', "X=1"], "has no X"),
    ],
)
def test_a_template_wants_exactly_its_values(tmp_path, capsys, words, reason):
    template = tmp_path / "t.conf"
    template.write_text('# ${COMMENT}\nserver_name: "${NAME}"\n')
    assert topology.main([str(template), *words]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a{b", "$x", "a\\"])
def test_a_value_stays_inside_its_quotes(value):
    with pytest.raises(Invalid) as caught:
        topology.render('server_name: "${NAME}"', {"NAME": value})
    assert caught.value.reason == "TEMPLATE_VALUE_MALFORMED"
