"""The heat map against edges and numbers worked out by hand, and studies on the pages."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from test_pages import FP32, INT8, Page

from quantbench.numerics import get_format
from quantbench.reports import Cell, read_studies, study_folder, write_report, write_study
from quantbench.reports.heatmap import heat_map, png_bytes, svg_bytes
from quantbench.reports.studies import map_of

RATIOS = {
    (4, 2): 0.60, (4, 3): 0.975, (4, 4): 0.985,
    (5, 2): 0.85, (5, 3): 0.985, (5, 4): 0.9951,
}  # fmt: skip


def cell(name: str, ratio: float) -> Cell:
    fmt = get_format(name)
    return Cell(
        reference="alpha",
        format=fmt.name,
        bits=fmt.bits,
        exponent_bits=fmt.exponent_bits,
        mantissa_bits=fmt.mantissa_bits,
        metric="top1",
        reference_score=0.8,
        score=0.8 * ratio,
        ratio=ratio,
        ratio_low=ratio - 0.01,
        ratio_high=min(1.0, ratio + 0.0025),
        target_ratio=0.98,
        samples=1000,
        verdict="pass" if ratio >= 0.98 else "fail",
    )


CELLS = [cell(f"e{exponent}m{mantissa}", ratio) for (exponent, mantissa), ratio in RATIOS.items()]


def words(svg: str) -> list[str]:
    return [
        "".join(found.itertext()).strip() for found in ElementTree.fromstring(svg).iter() if found.tag[-5:] == "}text"
    ]


def outline(colour: str) -> set[tuple[tuple[float, float], tuple[float, float]]]:
    """The edges of one colour, as (mantissa, exponent) ends."""
    (axes,) = heat_map(RATIOS).axes
    lines = [line for line in axes.lines if isinstance(line, Line2D) and line.get_color() == colour]
    return {tuple(zip(*map(list, line.get_data()), strict=True)) for line in lines}  # type: ignore[misc]


def test_outlines_part_what_reaches_a_ratio_from_what_does_not() -> None:
    """98%: (4, 4), (5, 3) and (5, 4) reach it. 99%: only (5, 4)."""
    assert outline("#d6006c") == {
        ((3.5, 3.5), (3.5, 4.5)),  # between e4m3 and e4m4
        ((2.5, 4.5), (2.5, 5.5)),  # between e5m2 and e5m3
        ((2.5, 4.5), (3.5, 4.5)),  # between e4m3 and e5m3
    }
    assert outline("#2038ff") == {
        ((3.5, 4.5), (3.5, 5.5)),  # between e5m3 and e5m4
        ((3.5, 4.5), (4.5, 4.5)),  # between e4m4 and e5m4
    }


def test_a_ratio_right_at_the_outline_is_inside() -> None:
    (axes,) = heat_map({(5, 2): 0.98, (5, 3): 0.99, (5, 4): 1.0}).axes
    assert [line.get_data()[0][0] for line in axes.lines] == [2.5], "98% all along, 99% from m3 on"


def test_squares_stand_where_their_bits_are_and_say_their_ratio() -> None:
    (axes,) = heat_map(RATIOS).axes
    squares = {patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)}
    assert squares == {(mantissa - 0.5, exponent - 0.5) for exponent, mantissa in RATIOS}
    texts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert texts == {place: f"{100 * ratio:.2f}" for place, ratio in RATIOS.items()}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("mantissa bits", "exponent bits")


def test_colours_grow_lighter_with_the_ratio() -> None:
    ratios = {(5, mantissa): ratio for mantissa, ratio in enumerate((0.1, 0.6, 0.85, 0.93, 0.97, 0.985, 0.995, 1.01))}
    (axes,) = heat_map(ratios).axes
    weights = np.array([0.2126, 0.7152, 0.0722])
    luminance = [float(np.asarray(patch.get_facecolor()[:3]) @ weights) for patch in axes.patches]
    assert luminance[:-1] == sorted(set(luminance)), "each step is another colour, but for what is above 99%"
    assert luminance[-1] == luminance[-2]


@pytest.mark.parametrize("ratios", [{}, {(5, 5): 0.5}, {(2, 1): 0.1, (8, 23): 1.0}], ids=["none", "one", "apart"])
def test_any_set_of_formats_makes_a_map(ratios: dict[tuple[int, int], float]) -> None:
    found = words(svg_bytes(heat_map(ratios)).decode())
    assert {f"{100 * ratio:.2f}" for ratio in ratios.values()} <= set(found)
    assert {"outline of 98", "outline of 99"} <= set(found)


def test_the_picture_shows_the_colours_on_white() -> None:
    picture = np.asarray(Image.open(io.BytesIO(png_bytes(heat_map(RATIOS)))).convert("RGB"))
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    share = {tuple(map(int, colour)): count / counts.sum() for colour, count in zip(colours, counts, strict=True)}
    assert share[(255, 255, 255)] > 0.2
    best = share[(0xFD, 0xE7, 0x25)]  # e5m4, and a little in the key
    assert share[(0x90, 0xD7, 0x43)] == pytest.approx(2 * best, rel=0.3), "two squares are between 98% and 99%"


def test_the_same_ratios_give_the_same_bytes_whatever_the_users_settings() -> None:
    svg, png = svg_bytes(heat_map(RATIOS)), png_bytes(heat_map(RATIOS))
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.facecolor": "red", "savefig.dpi": 30}):
        backwards = dict(reversed(RATIOS.items()))
        assert svg_bytes(heat_map(backwards)) == svg
        assert png_bytes(heat_map(backwards)) == png


def test_of_formats_with_the_same_bits_the_one_of_ieee_754_counts() -> None:
    cells = [cell("fp8_e4m3fnuz", 0.7), cell("fp8_e4m3fn", 0.8), cell("e4m3", 0.9), cell("e4m3b8", 0.6)]
    assert map_of(cells) == {(4, 3): 0.9}
    assert map_of(cells[:2]) == {(4, 3): 0.7}, "the first, where none is"


def test_block_formats_are_in_the_table_and_not_on_the_map(tmp_path: Path) -> None:
    cells = [cell("mxfp4", 0.7), cell("mxint8", 0.99), cell("e2m1", 0.5)]
    assert map_of(cells) == {(2, 1): 0.5}
    folder = study_folder(tmp_path, "alpha")
    write_study(folder, cells)
    assert {file.name for file in folder.iterdir()} == {"study.json", "heatmap.svg", "heatmap.png"}
    write_study(folder, cells[:2])
    assert {file.name for file in folder.iterdir()} == {"study.json"}, "an empty map, or an old one, would mislead"
    write_report(tmp_path, [], [cells[:2]])
    for name in ("index.html", "index.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "mxint8" in text and "<figure>" not in text and "heatmap" not in text


def test_studies_come_back_as_they_went(tmp_path: Path) -> None:
    other = [dataclasses.replace(CELLS[0], reference="beta")]
    write_study(study_folder(tmp_path, "beta"), other)
    write_study(study_folder(tmp_path, "alpha"), CELLS)
    (tmp_path / "studies" / "gamma").mkdir()
    (tmp_path / "studies" / "gamma" / "study.json").write_text('[{"reference": "gamma"}]')
    assert read_studies(tmp_path) == [tuple(CELLS), tuple(other)]
    assert read_studies(tmp_path / "nowhere") == []
    document = json.loads((tmp_path / "studies" / "alpha" / "study.json").read_text())
    keys = {"reference", "format", "bits", "metric", "score", "ratio", "target_ratio", "verdict"}
    assert all(keys <= set(entry) for entry in document)


def test_a_study_on_the_page(tmp_path: Path) -> None:
    other = [dataclasses.replace(entry, reference="beta") for entry in CELLS]
    write_report(tmp_path, [FP32, INT8], [CELLS, other])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    row = next(row for row in page.rows if row[0] == "e5m4")
    assert row == ["e5m4", "10", "5", "4", "0.79608", "99.51%", "98.51–99.76%", "1000", "pass"]
    assert "3 of 6 formats keep 98% of FP32's top1, which is 0.80000 on 1000 samples." in text
    assert "1 of 1 variants" in text, "formats of a study are no variants"

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "two maps on a page share no id"
    wanted = re.findall(r'href="#([^"]*)"', text) + re.findall(r"url\(#([^)]*)\)", text)
    assert set(wanted) <= set(ids)
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)[1:]:
        assert {f"{100 * ratio:.2f}" for ratio in RATIOS.values()} <= set(words(svg))
        assert "currentColor" in svg and "#123456" not in svg

    lines = [line for line in (tmp_path / "index.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert [[entry.strip() for entry in line.strip("|").split("|")] for line in lines] == page.rows
    assert "](studies/alpha/heatmap.svg)" in (tmp_path / "index.md").read_text(encoding="utf-8")


def test_a_page_of_studies_alone_says_nothing_of_variants(tmp_path: Path) -> None:
    write_report(tmp_path, [], [CELLS])
    for name in ("index.html", "index.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "variants" not in text.replace('class="variants"', "").replace(".variants th", "")
        assert "alpha: study of formats" in text and "How to read" not in text
