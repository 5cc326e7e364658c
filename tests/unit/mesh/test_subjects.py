"""Names in the broker: who may stand where, and who hears what."""

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_mesh import credentials, subjects


@pytest.mark.parametrize(
    ("pattern", "subject", "heard"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
    ],
)
def test_matching(pattern, subject, heard):
    assert subjects.matches(pattern, subject) is heard


@pytest.mark.parametrize("bad", ["", "a.b", "*", ">", "a b", "ä", "a\r\n", "x" * 65])
def test_what_cannot_be_a_token(bad):
    with pytest.raises(Invalid):
        subjects.check_token(bad, "node_id")
    with pytest.raises(Invalid):
        credentials.node_permissions(bad)


def test_a_nodes_permissions_carry_its_id_alone():
    allowed = credentials.node_permissions("n-1")
    for subject in (*allowed.publish, *allowed.subscribe):
        assert "n-1" in subject.split(".")


def test_method_subjects():
    assert subjects.method_subject("gl.any", "/a.v1.B/C") == "gl.any.a.v1.B.C"


@pytest.mark.parametrize("key", ["", "UABC", "A" * 56, "ä"])
def test_what_is_no_users_key(tmp_path, key):
    authority = credentials.Authority(tmp_path)
    with pytest.raises(Invalid):
        authority.mint_node_user("n-1", key)


def test_an_accounts_key_is_no_users(tmp_path):
    authority = credentials.Authority(tmp_path)
    with pytest.raises(Invalid):
        authority.mint_node_user("n-1", authority.account_public_key)
