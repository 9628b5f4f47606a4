"""The heat map of a study: quality ratio over exponent and mantissa bits, with the outlines of 98% and 99%."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from quantbench.reports.svg import INK, page_svg, svg_settings, svg_text

__all__ = ["CONTOURS", "heat_map", "page_heat_map", "png_bytes", "svg_bytes"]

Ratios = Mapping[tuple[int, int], float]
"""(exponent bits, mantissa bits) → quality ratio, a fraction of 1."""

CONTOURS = (0.98, 0.99)
"""Ratios whose outline is drawn: cells at or above on one side, cells below on the other."""

_STEPS = ((0.5, "#440154"), (0.8, "#443983"), (0.9, "#31688e"), (0.95, "#21918c"), (0.98, "#35b779"), (0.99, "#90d743"))
"""Colours of the cells below each ratio (viridis, which reads in grey and to the colour-blind too)."""
_BEST = "#fde725"
_Dashes = Literal["solid"] | tuple[float, tuple[float, ...]]
_LINES: dict[float, tuple[str, _Dashes, float]] = {
    0.98: ("#d6006c", "solid", 4.0),
    0.99: ("#2038ff", (0, (1.6, 1.2)), 2.6),
}
"""Colour, dashes and width: where the two run together, the first shows through the gaps of the second."""
_DARK = "#1d2430"
_DPI = 150


def heat_map(ratios: Ratios, ink: str = _DARK) -> Figure:
    """A figure with a square for each format: its colour and its number are the ratio in percent.

    An outline runs between neighbours of which one reaches its ratio and the other does not. Nothing is interpolated:
    there is no format between two.
    """
    with matplotlib.rc_context(svg_settings()):
        exponents = sorted({exponent for exponent, _ in ratios}) or [1]
        mantissas = sorted({mantissa for _, mantissa in ratios}) or [1]
        width, height = mantissas[-1] - mantissas[0] + 1, exponents[-1] - exponents[0] + 1
        figure = Figure(figsize=(2.6 + 0.62 * max(width, 3), 1.3 + 0.52 * max(height, 3)), layout="constrained")
        axes = figure.add_subplot()
        for (exponent, mantissa), ratio in sorted(ratios.items()):
            colour = _colour(ratio)
            axes.add_patch(Rectangle((mantissa - 0.5, exponent - 0.5), 1, 1, facecolor=colour, edgecolor="none"))
            text = f"{100 * ratio:.2f}"
            axes.text(mantissa, exponent, text, ha="center", va="center", fontsize=8.5, color=_readable_on(colour))
        for level in CONTOURS:
            colour, style, thickness = _LINES[level]
            for xs, ys in _outline(ratios, level):
                line = Line2D(xs, ys, color=colour, linestyle=style, linewidth=thickness, zorder=3 + level)
                axes.add_line(line)
        axes.set_xlim(mantissas[0] - 0.5, mantissas[-1] + 0.5)
        axes.set_ylim(exponents[0] - 0.5, exponents[-1] + 0.5)
        axes.set_xticks(range(mantissas[0], mantissas[-1] + 1))
        axes.set_yticks(range(exponents[0], exponents[-1] + 1))
        axes.set_xlabel("mantissa bits", color=ink)
        axes.set_ylabel("exponent bits", color=ink)
        axes.tick_params(colors=ink, length=0)
        axes.spines[:].set_visible(False)
        figure.set_facecolor("none")
        axes.patch.set_visible(False)
        figure.legend(
            handles=_keys(),
            title="% of FP32",
            loc="outside right upper",
            frameon=False,
            labelcolor=ink,
            fontsize=8.5,
            title_fontproperties={"size": 8.5},
        ).get_title().set_color(ink)
    return figure


def page_heat_map(ratios: Ratios, name: str) -> str:
    """The `<svg>` element for a page, in the page's ink. `name` keeps its ids apart from those of other maps."""
    label = f"Quality ratio of {name} over exponent and mantissa bits"
    return page_svg(heat_map(ratios, INK), label, ids=f"study-{name}-")


def svg_bytes(figure: Figure) -> bytes:
    """A stand-alone SVG file."""
    return svg_text(figure).encode()


def png_bytes(figure: Figure) -> bytes:
    """A stand-alone PNG file, on white."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    with matplotlib.rc_context(svg_settings()):
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _outline(ratios: Ratios, level: float) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The edges (xs, ys) between two neighbouring cells of which just one reaches the level."""
    for exponent, mantissa in sorted(ratios):
        here = ratios[exponent, mantissa] >= level
        right, above = ratios.get((exponent, mantissa + 1)), ratios.get((exponent + 1, mantissa))
        if right is not None and (right >= level) != here:
            yield (mantissa + 0.5, mantissa + 0.5), (exponent - 0.5, exponent + 0.5)
        if above is not None and (above >= level) != here:
            yield (mantissa - 0.5, mantissa + 0.5), (exponent + 0.5, exponent + 0.5)


def _colour(ratio: float) -> str:
    return next((colour for below, colour in _STEPS if ratio < below), _BEST)


def _readable_on(colour: str) -> str:
    """Black or white, whichever stands out (luminance weights of ITU-R BT.709)."""
    red, green, blue = to_rgb(colour)
    return _DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "#ffffff"


def _keys() -> list[Patch | Line2D]:
    bounds = [below for below, _ in _STEPS]
    names = [f"below {100 * bounds[0]:g}", *(f"{100 * a:g} to {100 * b:g}" for a, b in pairwise(bounds))]
    patches = [Patch(facecolor=colour, label=name) for (_, colour), name in zip(_STEPS, names, strict=True)]
    patches.append(Patch(facecolor=_BEST, label=f"{100 * bounds[-1]:g} and up"))
    lines = [
        Line2D([], [], color=colour, linestyle=style, linewidth=width, label=f"outline of {100 * level:g}")
        for level, (colour, style, width) in _LINES.items()
    ]
    return [*reversed(patches), *lines]
