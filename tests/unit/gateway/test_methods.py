"""No method can be served unlisted, and no rule stands for nothing."""

import pytest
from gridlease_gateway.domain.keys import Role
from gridlease_gateway.methods import RULES, Rule, public_methods, table


async def _nothing(call, request):
    raise AssertionError


HANDLERS = dict.fromkeys(public_methods(), _nothing)


def test_the_table_covers_each_method_of_the_protos():
    methods = table(HANDLERS)
    assert set(methods) == set(public_methods()) == set(RULES)
    assert methods["JobService.CreateJob"].path == "/gridlease.gateway.v1.JobService/CreateJob"


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_method_without_a_rule_stops_the_start(name):
    fewer = {key: rule for key, rule in RULES.items() if key != name}
    with pytest.raises(AssertionError):
        table(HANDLERS, fewer)


def test_a_rule_without_a_method_stops_the_start():
    with pytest.raises(AssertionError):
        table(HANDLERS, {**RULES, "JobService.Gone": Rule(Role.TENANT)})


def test_a_method_without_a_handler_stops_the_start():
    with pytest.raises(AssertionError):
        table({key: it for key, it in HANDLERS.items() if key != "JobService.GetJob"})


def test_only_joining_needs_no_key():
    assert [name for name, rule in RULES.items() if rule.role is Role.ANYONE] == [
        "FleetService.EnrolNode"
    ]


def test_what_creates_or_changes_is_audited():
    verbs = (
        "Create",
        "Finalize",
        "Cancel",
        "Wake",
        "Cordon",
        "Enrol",
        "Revoke",
        "Upload",
        "Set",
        "Drain",
    )
    verbs += ("Assign", "Exec", "Forward", "Delete", "WriteOff")
    for name, rule in RULES.items():
        assert rule.mutating == name.partition(".")[2].startswith(verbs), name
