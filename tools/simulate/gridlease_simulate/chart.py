"""Lines over time: as an SVG file, and as a row of blocks in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
# Source: Okabe and Ito's palette, told apart with every kind of colour vision.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES: Final = ("", "6 3", "2 3")
_WIDTH: Final = 860
_LEFT, _RIGHT, _TOP, _HEIGHT, _GAP = 64, 210, 34, 220, 64


@dataclass(frozen=True, slots=True)
class Line:
    """Values at equal distances over the panel's whole width."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. ``most``: the top of its scale; 0 = what the values need."""

    title: str
    lines: tuple[Line, ...]
    most: float = 0.0


def spark(values: Sequence[float], most: float = 0.0) -> str:
    """A row of blocks, one a value.

    >>> spark([0, 50, 100], 100)
    '▁▅█'
    """
    top = most or max(values, default=0) or 1
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(last, max(0, math.floor(v / top * last + 0.5)))] for v in values)


def svg(panels: Sequence[Panel], span: float, unit: str) -> str:
    """A whole SVG file: the panels below one another over the same time, 0 to ``span`` units."""
    height = len(panels) * (_TOP + _HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for at, panel in enumerate(panels):
        parts += _panel(panel, at * (_TOP + _HEIGHT + _GAP) + _TOP, span, unit)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: int, span: float, unit: str) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, top + _HEIGHT
    highest = max((v for line in panel.lines for v in line.values), default=0.0)
    step = _step(panel.most or highest or 1.0)
    scale = panel.most or step * math.ceil((highest or 1.0) / step)
    parts = [f'<text x="{_LEFT}" y="{top - 12}" font-weight="bold">{escape(panel.title)}</text>']
    for number in range(round(scale / step) + 1):
        y = bottom - number * step / scale * _HEIGHT
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number * step:g}</text>'
        )
    every = _step(span or 1.0)
    for number in range(int((span or 1.0) / every + 1e-9) + 1):
        x = _LEFT + number * every / (span or 1.0) * (right - _LEFT)
        parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#333"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{number * every:g}</text>'
        )
    parts.append(f'<text x="{right}" y="{bottom + 34}" text-anchor="end">{escape(unit)}</text>')
    parts.append(f'<path d="M{_LEFT} {top}V{bottom}H{right}" fill="none" stroke="#333"/>')
    for at, line in enumerate(panel.lines):
        parts += _line(line, at, (top, right, bottom), scale)
    return parts


def _line(line: Line, at: int, frame: tuple[int, int, int], scale: float) -> list[str]:
    top, right, bottom = frame
    colour = _COLOURS[at % len(_COLOURS)]
    dash = _DASHES[at // len(_COLOURS) % len(_DASHES)]
    style = f'stroke="{colour}" stroke-width="1.6"' + (f' stroke-dasharray="{dash}"' * bool(dash))
    last = max(1, len(line.values) - 1)
    points = " ".join(
        f"{_LEFT + i / last * (right - _LEFT):.1f},{bottom - v / scale * _HEIGHT:.1f}"
        for i, v in enumerate(line.values)
    )
    y = top + 10 + 18 * at
    return [
        f'<polyline points="{points}" fill="none" {style}/>',
        f'<path d="M{right + 14} {y - 4}h22" {style}/>',
        f'<text x="{right + 42}" y="{y}">{escape(line.label)}</text>',
    ]


def _step(most: float) -> float:
    """A round distance between ticks: some five of them.

    >>> _step(100)
    20.0
    """
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * it for it in (1, 2, 5, 10) if power * it >= rough * 0.999)
