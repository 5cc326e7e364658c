# mypy: disable-error-code="no-untyped-call"
# reportlab has no types.
"""An invoice as PDF: the same bytes in every process, on every day."""

from __future__ import annotations

import io
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Table, TableStyle
from reportlab.platypus.flowables import Spacer

from gridlease_billing.domain.invoice import Invoice
from gridlease_billing.domain.invoice_text import COLUMNS, cells, facts, sums

_WIDTHS_MM = (38, 9, 24, 19, 14, 26, 28, 24)
_CELL = ParagraphStyle("cell", fontName="Helvetica", fontSize=7.5, leading=9, splitLongWords=True)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=2)
_NUMBERS = {1, 4, 5, 6, 7}


class PdfPrinter:
    """Prints with reportlab's invariant mode: no clock, no random id in the file."""

    def print(self, invoice: Invoice) -> bytes:
        out = io.BytesIO()
        document = SimpleDocTemplate(
            out,
            pagesize=A4,
            leftMargin=14 * mm,
            rightMargin=14 * mm,
            topMargin=16 * mm,
            bottomMargin=16 * mm,
            invariant=1,
            title=f"Invoice {invoice.head.number}",
            author="Gridlease",
            pageCompression=1,
        )
        styles = getSampleStyleSheet()
        story = [
            Paragraph(f"Invoice {escape(invoice.head.number)}", styles["Title"]),
            _pairs(facts(invoice)),
            Spacer(1, 6 * mm),
            _lines(invoice),
            Spacer(1, 6 * mm),
            _pairs(sums(invoice)),
            Spacer(1, 4 * mm),
            _cell(
                "Amount = rate x seconds / 3600, rounded down to 1e-9. Rates are hourly, in"
                f" {invoice.currency}.",
                0,
            ),
        ]
        document.build(story, onFirstPage=_foot, onLaterPages=_foot)
        return out.getvalue()


def _pairs(pairs: list[tuple[str, str]]) -> Table:
    rows = [[_cell(name, 0), _cell(value, 0)] for name, value in pairs]
    table = Table(rows, colWidths=[42 * mm, 138 * mm], hAlign="LEFT")
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_tight()]))
    return table


def _lines(invoice: Invoice) -> LongTable:
    rows = [[_cell(name, at) for at, name in enumerate(COLUMNS)]]
    rows += [[_cell(text, at) for at, text in enumerate(cells(line))] for line in invoice.lines]
    table = LongTable(rows, colWidths=[width * mm for width in _WIDTHS_MM], repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.black),
                ("LINEBELOW", (0, 1), (-1, -1), 0.2, colors.lightgrey),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                *_tight(),
            ]
        )
    )
    return table


def _tight() -> list[tuple[object, ...]]:
    everywhere = ((0, 0), (-1, -1))
    return [("LEFTPADDING", *everywhere, 2), ("RIGHTPADDING", *everywhere, 2)]


def _cell(text: str, column: int) -> Paragraph:
    return Paragraph(escape(text), _NUMBER if column in _NUMBERS else _CELL)


def _foot(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(A4[0] - 14 * mm, 9 * mm, f"Page {document.page}")
