"""``python -m gridlease_verify FILE``: is the bill in an evidence file right? Needs no network."""

import json
import sys
from pathlib import Path

from gridlease_verify.bill import examine

if __name__ == "__main__":
    found = examine(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    for it in found:
        print(f"line {it.line}: {'' if it.wrong else 'not checkable: '}{it.what}")
    wrong = sum(it.wrong for it in found)
    print(f"{'not ' if wrong else ''}equal; {len(found) - wrong} not checkable")
    sys.exit(bool(wrong))
