"""The page docs/formats.md, written from the table: `python -m quantbench.numerics.page > docs/formats.md`."""

from __future__ import annotations

import math

from quantbench.numerics.formats import Format, all_formats

__all__ = ["formats_page", "formats_table_markdown"]

_TOP_CODES = {
    "inf-nan": "top exponent: ±∞, NaN",
    "nan": "all ones: NaN",
    "finite": "numbers",
    "nan-is-negative-zero": "numbers; NaN in place of −0",
    "integer": "numbers",
}

_INTRODUCTION = """\
# Number formats

This page is generated from the table in `quantbench/numerics/formats.py` by
`python -m quantbench.numerics.page > docs/formats.md`; a test keeps it current.
`quantbench formats` prints the same table, and `quantbench formats --json` more of it. What a model in one of the float
or block formats computes is defined in [emulation.md](emulation.md).

A name is read in any case. Besides the names below, `eXmY` is a signed format with X exponent bits (2 to 8) and Y
fraction bits (1 to 23) under IEEE 754 rules: bias 2^(X−1) − 1, subnormals, infinities and NaN in the top exponent.
`eXmYbZ` gives another bias, as far as float32 holds all values. So `e5m5` is `fp11`, and `e4m3` is IEEE-like and not
the OCP format, which is `fp8_e4m3fn` (alias `e4m3fn`).

`round_to` rounds to any of them: nearest-even, nearest-away, toward-zero, up, down, stochastic.

- NaN stays NaN, in formats without a NaN too; only `encode` refuses it there.
- Zero keeps its sign where the format has −0.
- A value above the largest one becomes infinity where the format has one, else NaN where it has that, else the largest
  value; with `saturate`, always the largest value. The directed modes treat it as IEEE 754 does: toward zero, a finite
  value stops at the largest one.
- Integers saturate. They are the bare format; the scale and zero point of quantization are applied around it.
- In E8M0 zero and negative values become NaN, and a tie goes to the even code.
"""

_BLOCKS = """\
## Block formats

Consecutive values along an axis share a scale. A scale of the MX formats is 2^(floor(log2 m) − e), m the largest
magnitude of the block and e the exponent of the element's largest power of two (OCP MX 1.0, section 6.3), at least
2^−127. In NVFP4 the scale of a block is E4M3(m / 6 / t), to nearest even, under the tensor's one scale
t = M / (6 · 448), M the largest m of the tensor, all in float32. Elements are rounded in the mode asked
for and saturate. A block that holds a NaN or an infinity becomes NaN. MXINT8's element is an integer over 64; its most
negative code is not used, so that rounding is symmetric and rounding twice changes nothing.
"""


def formats_page() -> str:
    """The whole page."""
    return f"{_INTRODUCTION}\n{formats_table_markdown()}\n{_BLOCKS}\n{_blocks_table()}"


def formats_table_markdown() -> str:
    """The table of the floats and integers, one row a format, in Markdown."""
    header = (
        "| name | bits | exponent | fraction | bias | lowest | largest | smallest normal | smallest subnormal"
        " | top codes are | v0.5 | also called | source |"
    )
    rows = [_row(entry) for entry in all_formats() if entry.kind != "block"]
    return "\n".join([header, "|" + "---|" * 13, *rows]) + "\n"


def _row(entry: Format) -> str:
    is_float = entry.kind == "float"
    cells = (
        f"`{entry.name}`",
        str(entry.bits),
        str(entry.exponent_bits) if is_float else "",
        str(entry.mantissa_bits) if is_float else "",
        str(entry.bias) if is_float else "",
        _number(entry.min),
        _number(entry.max),
        _number(entry.min_normal) if is_float else "",
        _number(entry.min_subnormal) if entry.has_subnormals else "none" if is_float else "",
        _TOP_CODES[entry.top_codes],
        "yes" if entry.mlperf_v05 else "",
        ", ".join(f"`{alias}`" for alias in entry.aliases),
        entry.source,
    )
    return "| " + " | ".join(cells) + " |"


def _blocks_table() -> str:
    lines = ["| name | element | values a block | scale | bits a value | source |", "|---|---|---|---|---|---|"]
    for entry in all_formats():
        if entry.kind == "block":
            scale = f"`{entry.scale}`" + (" under one `fp32` a tensor" if entry.tensor_scale else "")
            lines.append(
                f"| `{entry.name}` | `{entry.element}` | {entry.block_size} | {scale} | {entry.bits_per_value:g}"
                f" | {entry.source} |"
            )
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """A value exactly where that is short: as an integer, else as a multiple of a power of two."""
    if value < 0:
        return f"−{_number(-value)}"
    if value.is_integer() and value < 1e6:
        return str(int(value))
    mantissa, exponent = math.frexp(value)
    if mantissa == 0.5:
        return f"2^{exponent - 1}"
    return f"{value:g}" if float(f"{value:g}") == value else f"{value:.5g}"


if __name__ == "__main__":
    print(formats_page(), end="")
