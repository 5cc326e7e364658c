"""Numbers as a bench prints them."""

import json
import os
import platform
import sys


def note(text):
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def machine():
    """Where this was measured, in one line."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load before {load}"
    )


def table(title, head, rows):
    """A table that can be pasted into a document."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(f"\n{title}\n\n" + "\n".join(lines), flush=True)


def last_line(**outcome):
    """The outcome as one JSON object, in the last line."""
    print(json.dumps(outcome), flush=True)


def percentile(values, share):
    """The value below which ``share`` of them lie; ``values`` is sorted and not empty."""
    return values[min(len(values) - 1, int(len(values) * share))]


def rounded(value, digits=3):
    """Every float in nested dictionaries, rounded to significant digits."""
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    return value
