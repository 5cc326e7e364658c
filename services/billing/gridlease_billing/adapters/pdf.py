# mypy: disable-error-code="no-untyped-call"
# reportlab has no types.
"""A document as PDF: the same bytes in every process, on every day, in every language."""

from __future__ import annotations

import functools
import importlib.resources
import io
from itertools import groupby
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Table, TableStyle
from reportlab.platypus.flowables import Spacer

from gridlease_billing.domain.invoice import Invoice
from gridlease_billing.domain.invoice_text import (
    RIGHT,
    facts,
    heads,
    language_of,
    rule,
    sums,
    table,
    title,
)

_WIDTHS_MM = (9, 34, 31, 31, 19, 22, 24, 14)
_LATIN, _CJK = "Helvetica", "GridleaseCJK"
_CELL = ParagraphStyle("cell", fontName=_LATIN, fontSize=7.5, leading=9.5, splitLongWords=True)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=2)
_TITLE = ParagraphStyle("title", fontName=_LATIN, fontSize=16, leading=22)


class PdfPrinter:
    """Prints with reportlab's invariant mode: no clock, no random id in the file.

    Nothing is compressed: two builds of zlib need not give the same bytes.
    """

    def print(self, invoice: Invoice, language: str = "") -> bytes:
        language = language_of(invoice, language)
        _characters()
        out = io.BytesIO()
        document = SimpleDocTemplate(
            out,
            pagesize=A4,
            leftMargin=13 * mm,
            rightMargin=13 * mm,
            topMargin=16 * mm,
            bottomMargin=16 * mm,
            invariant=1,
            title=invoice.head.number or invoice.head.name,
            author="Gridlease",
            lang=language,
            pageCompression=0,
        )
        story = [
            _text(title(invoice, language), _TITLE),
            Spacer(1, 3 * mm),
            _pairs(facts(invoice, language)),
            Spacer(1, 6 * mm),
            _lines(invoice, language),
            Spacer(1, 6 * mm),
            _pairs(sums(invoice, language)),
            Spacer(1, 4 * mm),
            _text(rule(invoice, language), _CELL),
        ]
        document.build(story, onFirstPage=_foot, onLaterPages=_foot)
        return out.getvalue()


@functools.cache
def _characters() -> frozenset[int]:
    """What the Chinese typeface has; it is registered on the way."""
    file = importlib.resources.files("gridlease_billing") / "fonts" / "DroidSansFallback-GB2312.ttf"
    font = TTFont(_CJK, io.BytesIO(file.read_bytes()))
    pdfmetrics.registerFont(font)
    return frozenset(font.face.charToGlyph)


def _is_latin(character: str) -> bool:
    """Is it set in Helvetica? Its encoding in a PDF is Windows' Latin."""
    try:
        character.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def runs(text: str) -> str:
    """The text as markup: each run of characters in a typeface that has them, ? for the rest."""
    known = "".join(
        it if _is_latin(it) or ord(it) in _characters() else "?" for it in text if it.isprintable()
    )
    return "".join(
        escape("".join(run)) if latin else f'<font name="{_CJK}">{escape("".join(run))}</font>'
        for latin, run in groupby(known, _is_latin)
    )


def _pairs(pairs: list[tuple[str, str]]) -> Table:
    rows = [[_text(name, _CELL), _text(value, _CELL)] for name, value in pairs]
    made = Table(rows, colWidths=[46 * mm, 138 * mm], hAlign="LEFT")
    made.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_tight()]))
    return made


def _lines(invoice: Invoice, language: str) -> LongTable:
    rows = [[_cell(name, at) for at, name in enumerate(heads(language))]]
    rows += [[_cell(it, at) for at, it in enumerate(row)] for row in table(invoice, language)]
    made = LongTable(rows, colWidths=[width * mm for width in _WIDTHS_MM], repeatRows=1)
    made.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.black),
                ("LINEBELOW", (0, 1), (-1, -1), 0.2, colors.lightgrey),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                *_tight(),
            ]
        )
    )
    return made


def _tight() -> list[tuple[object, ...]]:
    everywhere = ((0, 0), (-1, -1))
    return [("LEFTPADDING", *everywhere, 2), ("RIGHTPADDING", *everywhere, 2)]


def _cell(text: str, column: int) -> Paragraph:
    return _text(text, _NUMBER if column in RIGHT else _CELL)


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(runs(text), style)


def _foot(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont(_LATIN, 7)
    canvas.drawRightString(A4[0] - 13 * mm, 9 * mm, str(document.page))
