"""How values of tokens are drawn: the text itself, each token on a colour that says how it moved the score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

from onnx_inspect.analysis.token_saliency import TokenMap, TokenPanel
from onnx_inspect.render import _style as style
from onnx_inspect.render import _tokens as tokens
from onnx_inspect.render._style import FAINT, INK, LABEL, MARGIN, SMALL, WARN, Page

AMOUNT = "Reds"  # of what has no sign: pale is little, so that the text can be read
LINE = 6.6  # inches of text
GUTTER = 0.22
COLOURBAR = 0.85
BAR, SHORT = 0.8, 0.42  # a colour bar's height at least, with its label and without


def figure_size(panels: Sequence[TokenPanel]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    return style.whole(2 * MARGIN + LINE + GUTTER + COLOURBAR), style.whole(sum(map(_height, panels)) + MARGIN)


@style.styled
def draw(panels: Sequence[TokenPanel], figure: Figure | SubFigure) -> None:
    """Draw texts one below the other, once for each method: red tokens speak for the target, blue ones against it.

    Colours of a method run from minus its largest |value| to plus it; tokens that were never hidden are faint.

    Parameters
    ----------
    panels : sequence of TokenPanel, at least one
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(panels))
    top = 0.0
    for panel in panels:
        body = page.heading(panel.source, _lines(panel), top=top) + MARGIN / 2
        for one in panel.maps:
            body = _draw_map(page, panel, one, body)
        top += _height(panel)


def _lines(panel: TokenPanel) -> style.Lines:
    return style.wrap_lines([(note, FAINT) for note in panel.notes], LINE)


def _height(panel: TokenPanel) -> float:
    """Inches that a text takes with all its methods."""
    heading = style.heading_height(len(_lines(panel))) + MARGIN / 2
    return heading + len(panel.maps) * _block(panel) + MARGIN / 2


def _block(panel: TokenPanel) -> float:
    """Inches that a method takes."""
    _, lines = tokens.lay(panel.pieces, panel.glued, LINE)
    under = (2 if panel.signed else 1) * style.line_height(SMALL)
    return style.line_height(LABEL) + 0.08 + max(_tall(panel, lines), lines * tokens.LEADING + under) + GUTTER


def _tall(panel: TokenPanel, lines: int) -> float:
    """Inches of the colour bar beside a text."""
    return max(BAR if panel.signed else SHORT, min(1.6, lines * tokens.LEADING))


def _draw_map(page: Page, panel: TokenPanel, one: TokenMap, top: float) -> float:
    """One method's block; returns where the next begins."""
    page.text(MARGIN, top, style.fit(one.method, 1.9, weight="bold"), weight="bold")
    page.text(MARGIN + 2.0, top, style.fit(_says(one), LINE - 2.0, keep="start"), color=WARN if one.problem else INK)
    body = top + style.line_height(LABEL) + 0.08
    places, lines = tokens.lay(panel.pieces, panel.glued, LINE)
    reach = 0.0 if one.problem else float(np.abs(one.values).max())
    name, low, label = (style.DIVERGING, -reach, "against · for") if panel.signed else (AMOUNT, 0.0, "")
    colours = style.colourise(one.values, name, low, reach)
    tokens.draw(
        page, MARGIN, body, places, colours, [(asked or one.every) and not one.problem for asked in panel.asked]
    )
    if not one.problem:
        bar = page.axes(MARGIN + LINE + GUTTER, body, 0.11, _tall(panel, lines) - tokens.LEADING + tokens.GROUND)
        style.colourbar(bar, name, low, reach, label)
    under = body + lines * tokens.LEADING
    for word, strongest in (("for" if panel.signed else "most", one.pro), ("against", one.contra)):
        if strongest:
            said = ",  ".join(f"{piece} {style.number(value)}" for piece, value in strongest)
            page.text(MARGIN, under, style.fit(f"{word}: {said}", LINE, size=SMALL, keep="start"), size=SMALL)
        under += style.line_height(SMALL)
    return top + _block(panel)


def _says(one: TokenMap) -> str:
    if one.problem:
        return one.problem
    return one.target + ("" if one.score is None else f"  {style.number(one.score)}")
