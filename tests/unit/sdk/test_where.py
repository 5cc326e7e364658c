"""Where the door is: what is given, the environment, the client file, in this order."""

import json

import pytest
from gridlease_kernel.faults import Invalid, Precondition, Unauthenticated
from gridlease_sdk import where
from gridlease_sdk.where import Where


@pytest.fixture
def client_file(tmp_path):
    path = tmp_path / "client.json"
    keys = {"endpoint": "h:1", "tenant_key": "t", "operator_key": "o"}
    path.write_text(json.dumps(keys))
    return path


def test_the_order(client_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    named = {"GRIDLEASE_CLIENT_FILE": str(client_file)}
    assert where.find(named) == Where("h:1", "t")
    assert where.find(named, operator=True) == Where("h:1", "o")
    assert where.find({**named, "GRIDLEASE_API_KEY": "e"}) == Where("h:1", "e")
    assert where.find({**named, "GRIDLEASE_API_KEY": "e"}, api_key="g") == Where("h:1", "g")
    assert where.find({}, client_file=client_file, endpoint="z:9") == Where("z:9", "t")
    (tmp_path / where.DEFAULT_FILE).parent.mkdir(parents=True)
    client_file.rename(tmp_path / where.DEFAULT_FILE)
    assert where.find({}) == Where("h:1", "t")


def test_too_little(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Precondition) as nowhere:
        where.find({})
    assert nowhere.value.reason == "ENDPOINT_UNKNOWN"
    with pytest.raises(Unauthenticated):
        where.find({"GRIDLEASE_ENDPOINT": "h:1"})
    with pytest.raises(Unauthenticated):
        where.find({"GRIDLEASE_ENDPOINT": "h:1", "GRIDLEASE_API_KEY": "k\u00e9y"})
    (tmp_path / "broken").write_text("{")
    with pytest.raises(Invalid):
        where.find({}, client_file=tmp_path / "broken")
