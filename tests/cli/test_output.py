"""The tables on the terminal: they fit 100 columns with the longest cells that the embedded references can give."""

from __future__ import annotations

import pytest

from quantbench.cli.output import emit
from quantbench.cli.report import _columns
from quantbench.errors import InputError
from quantbench.reports import Result, ScenarioResult

LONGEST = Result(
    reference="ppocr-cls",
    dtype="bfloat16",
    metric="exact-match",
    reference_score=0.98765,
    score=0.98765,
    ratio=1.0012,
    ratio_low=0.9912,
    ratio_high=1.0123,
    target_ratio=0.99,
    samples=100000,
    verdict="pass",
    model_bytes=103_450_000,
    reference_bytes=104_000_000,
    speed=10.25,
    execution="emulated",
    fingerprint="",
    scenarios=(
        ScenarioResult("SingleStream", 123.456, "ms", True, 64),
        ScenarioResult("MultiStream", 1234.5, "ms", False, 662),
        ScenarioResult("Server", 1234.5, "queries/s", False, 459),
        ScenarioResult("Offline", 12345.6, "samples/s", True, 1),
    ),
)


def test_the_report_table_fits(capsys: pytest.CaptureFixture[str]) -> None:
    emit([LONGEST, LONGEST], document=lambda result: result.document(), columns=_columns(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4, "a heading, a rule and a line for each result: nothing is folded"
    assert max(map(len, lines)) <= 100
    for cell in ("ppocr-cls", "bfloat16", "0.98765", "100.12%", "(10.25×)", "103.45", "1,234*", "12,346"):
        assert cell in lines[2]


def test_numbers_end_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [("name", lambda pair: pair[0]), (">size", lambda pair: pair[1])]
    emit([("a", "1.5"), ("long name", "123.5")], document=dict, columns=columns, as_json=False)
    heading, _, first, second = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert len(heading) == len(first) == len(second)


def test_what_came_before_an_error_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def results() -> object:
        yield {"n": 1}
        raise InputError("the second went wrong")

    with pytest.raises(InputError):
        emit(results(), document=dict, columns=[], as_json=True)
    assert capsys.readouterr().out == '[\n  {\n    "n": 1\n  }\n]\n'


def test_an_error_before_any_result_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    def results() -> object:
        raise InputError("the first went wrong")
        yield

    with pytest.raises(InputError):
        emit(results(), document=dict, columns=[], as_json=True)
    assert capsys.readouterr().out == ""
