"""The report's plot, quality ratio against size, as an SVG that takes its ink from the page around it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from quantbench.reports.results import REFERENCE, Result
from quantbench.reports.svg import INK, page_svg, svg_settings

__all__ = ["quality_against_size"]

COLOURS = ("#4c78a8", "#e45756", "#2a9d6f", "#b279a2", "#f58518", "#5ab4ac", "#9d755d", "#8a8a00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def quality_against_size(results: Sequence[Result]) -> str:
    """An `<svg>` element with one mark for each variant: colour by dtype, shape by reference, bar for the interval.

    The same results give the same bytes. Text stays text, in the page's font.
    """
    variants = [result for result in results if result.verdict != REFERENCE]
    dtypes = list(dict.fromkeys(result.dtype for result in variants))
    references = list(dict.fromkeys(result.reference for result in variants))
    with matplotlib.rc_context(svg_settings()):
        figure = Figure(figsize=(8.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for target in sorted({result.target_ratio for result in variants}):
            axes.axhline(100 * target, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.5)
            axes.annotate(
                f"target {100 * target:g}%",
                (0, 100 * target),  # on the left, where no variant is small enough to be
                xycoords=("axes fraction", "data"),
                xytext=(4, 2),
                textcoords="offset points",
                ha="left",
                va="bottom",
                color=INK,
                fontsize=8,
                alpha=0.8,
            )
        for result in variants:
            colour = COLOURS[dtypes.index(result.dtype) % len(COLOURS)]
            marker = MARKERS[references.index(result.reference) % len(MARKERS)]
            x, y = 100 * result.size, 100 * result.ratio
            axes.vlines(x, 100 * result.ratio_low, 100 * result.ratio_high, color=colour, linewidth=1.4, alpha=0.7)
            axes.plot(x, y, marker=marker, color=colour, markersize=7, linestyle="none")
        axes.set_xlabel("size of the model files, % of FP32", color=INK)
        axes.set_ylabel("quality, % of FP32", color=INK)
        axes.set_xlim(left=0)
        axes.tick_params(colors=INK, length=3)
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        keys = [
            Line2D([], [], marker="o", color=COLOURS[index % len(COLOURS)], linestyle="none", label=dtype)
            for index, dtype in enumerate(dtypes)
        ] + [
            Line2D([], [], marker=MARKERS[index % len(MARKERS)], color=INK, linestyle="none", label=reference)
            for index, reference in enumerate(references)
        ]
        if keys:
            figure.legend(handles=keys, loc="outside right upper", frameon=False, labelcolor=INK, handletextpad=0.2)
    return page_svg(figure, "Quality ratio against size of every variant")
