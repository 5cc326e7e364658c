"""Where a job file's secrets come from."""

from pathlib import Path

import pytest
from gridlease_kernel.faults import Fault
from gridlease_sdk import jobfile, secretvalues


def test_values_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file")
    given = {"A": "env", "B": "env:OTHER", "C": "file:key"}
    found = secretvalues.read(given, tmp_path, {"A": "1", "OTHER": "2"})
    assert found == {"A": "1", "B": "2", "C": "from a file"}
    assert secretvalues.read(["A"], tmp_path, {"A": "1"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"A": "hunter2"}, "SECRET_IN_FILE"),
        ({"A": "env"}, "SECRET_NOT_SET"),
        ({"A": "file:absent"}, "FILE_NOT_FOUND"),
        ({"A": "file:binary"}, "SECRET_NOT_TEXT"),
        ({"A": "file:large"}, "SECRET_TOO_LARGE"),
    ],
)
def test_what_is_no_place_is_refused(tmp_path: Path, given: dict[str, str], reason: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * (65 << 10))
    with pytest.raises(Fault) as caught:
        secretvalues.read(given, tmp_path, {})
    assert (caught.value.reason, caught.value.field) == (reason, "secrets.A")
    assert "hunter2" not in str(caught.value)


def test_a_job_file_names_its_image_and_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("value")
    text = b"commands: [x]\nimage: registry.example/team/app:v1\nsecrets:\n  KEY: file:key\n"
    spec = jobfile.parse(text, tmp_path).spec
    assert (spec.image, dict(spec.secrets)) == ("registry.example/team/app:v1", {"KEY": "value"})
