"""``python -m gridlease_verify FILE``: is the bill in an evidence file right? Needs no network."""

import json
import sys
from pathlib import Path

from gridlease_verify.bill import check

if __name__ == "__main__":
    found = check(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    print("\n".join(f"line {it.line}: {it.what}" for it in found) or "equal")
    sys.exit(bool(found))
