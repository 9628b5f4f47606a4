"""From a figure to SVG: the same bytes each time, and in the ink of the page around it."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = ["INK", "page_svg", "svg_settings", "svg_text"]

INK = "#123456"  # no colour of any plot: replaced by the page's text colour, so that it reads in the dark too


def page_svg(figure: Figure, label: str, ids: str = "") -> str:
    """An `<svg>` element that takes its ink and its width from the page.

    Args:
        label: what a screen reader says.
        ids: put before every id, where a page has several figures.
    """
    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    if ids:
        svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{ids}", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def svg_text(figure: Figure) -> str:
    """The SVG document. Text stays text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(svg_settings()):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def svg_settings() -> dict[Any, Any]:
    """Settings that figures are made and written under, whatever the user's own are."""
    return {"svg.fonttype": "none", "svg.hashsalt": "quantbench", "font.size": 10}
