"""The report's pages: self-contained, the same numbers in both, and the numbers that went in."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quantbench.reports import REFERENCE, Result, ScenarioResult, read_results, write_report, write_results

RUNS = (
    ScenarioResult("SingleStream", 1.25, "ms", True, 64),
    ScenarioResult("MultiStream", 9.87654, "ms", True, 662),
    ScenarioResult("Server", 321.0, "queries/s", False, 459),
    ScenarioResult("Offline", 1234.5, "samples/s", True, 1),
)
FP32 = Result(
    reference="alpha",
    dtype="fp32",
    metric="top1",
    reference_score=0.8,
    score=0.8,
    ratio=1.0,
    ratio_low=1.0,
    ratio_high=1.0,
    target_ratio=0.98,
    samples=1000,
    verdict=REFERENCE,
    model_bytes=4_000_000,
    reference_bytes=4_000_000,
    speed=1.0,
    execution="native",
    fingerprint="0" * 64,
    scenarios=RUNS,
)
INT8 = dataclasses.replace(
    FP32,
    dtype="int8",
    score=0.792,
    ratio=0.99,
    ratio_low=0.9845,
    ratio_high=0.9956,
    verdict="pass",
    model_bytes=1_040_000,
    speed=1.956,
)
FP11 = dataclasses.replace(
    FP32,
    dtype="fp11",
    score=0.4,
    ratio=0.5,
    ratio_low=0.47,
    ratio_high=0.53,
    verdict="fail",
    speed=0.83,
    execution="emulated",
    scenarios=(),
)
OTHER = dataclasses.replace(INT8, reference="beta", target_ratio=0.99, verdict="pass")
RESULTS = [FP32, INT8, FP11, dataclasses.replace(FP32, reference="beta"), OTHER]


class Page(HTMLParser):
    """Collects the tags with their attributes, and the cells of every table row."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.cell = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("reports")
    write_report(written, RESULTS)
    return written


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    parsed = Page()
    parsed.feed((folder / "index.html").read_text(encoding="utf-8"))
    return parsed


def test_nothing_is_fetched_from_elsewhere(folder: Path, page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "img", "video", "audio", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (name, attributes)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\([\"']?([^)\"']*)", text))


def test_rows_carry_the_numbers_that_went_in(page: Page) -> None:
    int8 = next(row for row in page.rows if row and row[0] == "int8")
    assert int8 == [
        "int8",
        "0.79200",
        "99.00%",
        "98.45–99.56%",
        "pass",
        "1.04",
        "1.96×",
        "1.250",
        "9.877",
        "321.0*",
        "1,234",
    ]
    fp11 = next(row for row in page.rows if row and row[0] == "fp11")
    assert fp11[4:] == ["fail", "4.00", "(0.83×)", "–", "–", "–", "–"]
    fp32 = next(row for row in page.rows if row and row[0] == "fp32")
    assert fp32[:7] == ["fp32", "0.80000", "–", "–", "–", "4.00", "1.00×"]


def test_both_pages_have_the_same_tables(folder: Path, page: Page) -> None:
    text = (folder / "index.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == page.rows
    assert len(page.rows) == len(RESULTS) + 2, "a heading row for each reference"
    assert "## alpha" in text and "## beta" in text


def test_a_table_in_markdown_has_no_gaps(folder: Path) -> None:
    """A blank line would end the table."""
    text = (folder / "index.md").read_text(encoding="utf-8")
    assert re.search(r"\| dtype .*\n\|---\|---:.*\n\| fp32 .*\n\| int8 .*\n\| fp11 .*\n", text)


def test_the_count_of_passes(folder: Path) -> None:
    for name in ("index.html", "index.md"):
        assert "2 of 3 variants of 2 reference models" in (folder / name).read_text(encoding="utf-8")


def test_the_plot_is_well_formed_and_names_everything(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    root = ElementTree.fromstring(svg)
    words = {"".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("}text")}
    assert {"int8", "fp11", "alpha", "beta", "target 98%", "target 99%"} <= words
    assert "fp32" not in words, "the reference is what the others are compared with, not a mark"
    assert "#123456" not in svg and "currentColor" in svg
    assert "width" not in root.attrib and "viewBox" in root.attrib


def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_report(tmp_path, RESULTS)
    for name in ("index.html", "index.md"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_text_is_escaped(tmp_path: Path) -> None:
    write_report(tmp_path, [dataclasses.replace(FP32, metric="<script>alert(1)</script>"), INT8])
    assert "<script" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_no_results_make_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path, [])
    assert "0 of 0 variants" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_results_come_back_as_they_went(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", RESULTS)
    assert read_results(tmp_path / "results.json") == RESULTS


@pytest.mark.parametrize("content", ["", "[{}]", "{}", '[{"reference": "alpha"}]', "[1]", "null"])
def test_a_file_that_holds_no_results_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    assert read_results(tmp_path / "results.json") == []
