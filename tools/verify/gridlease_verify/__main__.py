"""``python -m gridlease_verify FILE``: is the bill in an evidence file right? Needs no network."""

import json
import sys
from pathlib import Path

from gridlease_verify.bill import examine

if __name__ == "__main__":
    found = examine(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    wrong = [it for it in found if it.wrong]
    words = ("not checkable: ", "")
    print("\n".join(f"line {it.line}: {words[it.wrong]}{it.what}" for it in found) or "equal")
    if found and not wrong:
        print(f"equal; {len(found)} not checkable")
    sys.exit(bool(wrong))
