"""Which commands a frozen Python may run in itself."""

import pytest
from gridlease_agent.runtimes import zygote


@pytest.mark.parametrize(
    ("command", "plain"),
    [
        ("python train.py --lr 0.1", True),
        ("python3 -c 'import a; print(a.b(1))'", True),
        ('python3 -c "import a; print(1)"', True),
        ('python3 -c "print($HOME)"', False),
        ("python a.py; rm b", False),
        ("python a.py > log", False),
        ("python a.py *.txt", False),
        ("A=1 python a.py", False),
        ("python a.py 'unfinished", False),
    ],
)
def test_only_what_a_shell_would_only_split(command: str, plain: bool) -> None:
    assert zygote.plain(command) is plain
