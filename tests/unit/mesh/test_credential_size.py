"""A credential fits into one line of NATS, also of a broker that nobody configured for us."""

import json

import pytest
from gridlease_mesh.permissions import ROLES, role_permissions

LINE_BYTES = 4_096  # a broker's default max_control_line
REST_BYTES = 1_000  # of CONNECT and of the token beside the subjects: 800 by measure


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_credential_fits_into_a_line(role):
    allow = role_permissions(role)
    subjects = json.dumps({"pub": allow.publish, "sub": allow.subscribe}, separators=(",", ":"))
    assert len(subjects) * 4 // 3 + REST_BYTES < LINE_BYTES, len(subjects)
