"""The local functions that round to a format with standard ONNX operators, exactly as `numerics.round_to` does."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from quantbench.numerics import Format

__all__ = ["DOMAIN", "rounding_function"]

DOMAIN = "quantbench.rounding"
"""Domain of the functions."""

_OPSET = 21
_EVERYTHING = np.iinfo(np.int64).max


def rounding_function(fmt: Format) -> ir.Function:
    """The function named by the format: float32 of any shape to the same shape, in the format's values.

    Of a block format it takes the attributes `axis`, along which blocks run, and `run`, the elements of the axis after
    which they start anew (0: nowhere). Each index of the first axis has a tensor scale of its own, unless blocks run
    along it, as `block_operands` defines.
    """
    body = _Body()
    y = _blocks(body, fmt) if fmt.kind == "block" else _rounded(body, body.input, fmt, saturate=False)
    y.name = "y"
    attributes = [ir.Attr(name, ir.AttributeType.INT, None) for name in ("axis", "run") if fmt.kind == "block"]
    graph = ir.Graph([body.input], [y], nodes=body.nodes, opset_imports={"": _OPSET}, name=fmt.name)
    return ir.Function(DOMAIN, fmt.name, graph=graph, attributes=attributes)


def _rounded(body: _Body, x: ir.Value, fmt: Format, *, saturate: bool) -> ir.Value:
    """`x` to the nearest values of a plain format, half to even.

    |x|, held between the smallest normal value and the power of two of the largest, lies in a binade [p, 2p). The step
    of the format is p·2^-m there, and dividing by it, rounding half to even and multiplying are exact, for it is a
    power of two. What lands above the largest value becomes infinity, else NaN, else the largest value, whichever the
    format has; with `saturate` always the largest.
    """
    if fmt.kind == "int":
        step = body.constant(fmt.min_subnormal)
    else:
        top = 2.0 ** (math.frexp(fmt.max)[1] - 1)
        held = body.op("Clip", body.op("Abs", x), body.constant(fmt.min_normal), body.constant(top))
        step = body.op("Mul", _power_of_two(body, held, top), body.constant(2.0**-fmt.mantissa_bits))
    y = body.op("Mul", body.op("Round", body.op("Div", x, step)), step)
    largest = body.constant(fmt.max)
    if (fmt.has_inf or fmt.has_nan) and not saturate:
        over = body.op("Mul", y, body.constant(math.inf)) if fmt.has_inf else body.constant(math.nan)
        y = body.op("Where", body.op("Greater", body.op("Abs", y), largest), over, y)
    else:
        y = body.op("Where", body.op("Greater", y, largest), largest, y)
        least = body.constant(fmt.min)
        y = body.op("Where", body.op("Less", y, least), least, y)
    if not fmt.has_negative_zero:
        zero = body.constant(0.0)
        y = body.op("Where", body.op("Equal", y, zero), zero, y)
    return y


def _power_of_two(body: _Body, x: ir.Value, largest: float) -> ir.Value:
    """The largest power of two that is no greater than `x`, from 2^-127 up to `largest`.

    With u = 2^-24, q = fl((1/(2u) + 1)·x) gives p = q − fl((1 − u)·q) exactly (S. M. Rump, "Ultimately fast accurate
    summation", SIAM J. Sci. Comput. 31, 2009, algorithm 3.5).
    """
    unscale = None
    if largest > 2.0**100:  # q would overflow: bring values from 1 up down by 2^-64, exactly
        at_least_one = body.op("GreaterOrEqual", x, body.constant(1.0))
        x = body.op("Mul", x, body.op("Where", at_least_one, body.constant(2.0**-64), body.constant(1.0)))
        unscale = body.op("Where", at_least_one, body.constant(2.0**64), body.constant(1.0))
    q = body.op("Mul", x, body.constant(2.0**23 + 1))
    # the Abs changes nothing but keeps compilers from contracting Mul and Sub into one fused operation
    power = body.op("Sub", q, body.op("Abs", body.op("Mul", q, body.constant(1 - 2.0**-24))))
    return power if unscale is None else body.op("Mul", power, unscale)


def _blocks(body: _Body, fmt: Format) -> ir.Value:
    """The input folded to (samples, outer, blocks, block size, inner), scaled, rounded, and folded back."""
    assert fmt.element is not None
    shape = body.op("Shape", body.input)
    axis = body.op("Mod", body.attribute("axis"), body.op("Shape", shape))
    zero, one = body.integers(0), body.integers(1)
    first = body.op("Min", axis, one)  # 1 where there are samples
    samples = body.product(body.op("Slice", shape, zero, first))
    before = body.product(body.op("Slice", shape, first, axis))
    inner = body.product(body.op("Slice", shape, body.op("Add", axis, one), body.integers(_EVERYTHING)))
    length = body.op("Gather", shape, axis)
    run = body.attribute("run")
    runs = body.op("Greater", run, zero)
    outer = body.op("Mul", before, body.op("Where", runs, body.op("Div", length, body.op("Max", run, one)), one))
    run = body.op("Where", runs, run, length)

    size = body.integers(fmt.block_size)
    missing = body.op("Mod", body.op("Neg", run), size)
    whole = body.op("Add", run, missing)
    rows = body.op("Reshape", body.input, body.join(samples, outer, run, inner), allowzero=1)
    padded = body.op("Pad", rows, body.join(body.integers(0, 0, 0, 0, 0, 0), missing, zero))
    number = body.op("Div", whole, size)
    x = body.op("Reshape", padded, body.join(samples, outer, number, size, inner), allowzero=1)

    scale = _scales(body, x, fmt)
    divisor = scale
    if fmt.tensor_scale:  # a scale of zero makes zeros, whatever it divides
        divisor = body.op("Where", body.op("Equal", scale, body.constant(0.0)), body.constant(1.0), scale)
    y = body.op("Mul", _rounded(body, body.op("Div", x, divisor), fmt.element, saturate=True), scale)

    y = body.op("Reshape", y, body.join(samples, outer, whole, inner), allowzero=1)
    return body.op("Reshape", body.op("Slice", y, zero, run, body.integers(2)), shape, allowzero=1)


def _scales(body: _Body, x: ir.Value, fmt: Format) -> ir.Value:
    """The scale of each block, (samples, outer, blocks, 1, inner); NaN where the block has an infinity or a NaN."""
    assert fmt.element is not None and fmt.scale is not None
    along = body.integers(3)
    largest = body.op("ReduceMax", body.op("Abs", x), along)
    spoilt = body.op("ReduceSum", body.op("Mul", x, body.constant(0.0)), along)  # zeros, or NaN
    if not fmt.tensor_scale:  # OCP MX 1.0, section 6.3: 2^(floor(log2 largest) − emax), at least 2^-127
        exponent = math.frexp(fmt.element.max)[1] - 1
        at_least = body.op("Max", largest, body.constant(2.0 ** (exponent - 127)))
        power = _power_of_two(body, at_least, math.inf)
        return body.op("Add", body.op("Mul", power, body.constant(2.0**-exponent)), spoilt)
    finite = body.op("Where", body.op("IsNaN", spoilt), body.constant(0.0), largest)
    top = body.op("ReduceMax", finite, body.integers(1, 2, 3, 4))
    tensor_scale = body.op("Div", top, body.constant(fmt.element.max * fmt.scale.max))
    nothing = body.op("Equal", tensor_scale, body.constant(0.0))
    tensor_scale = body.op("Where", nothing, body.constant(1.0), tensor_scale)
    wanted = body.op("Div", body.op("Div", largest, body.constant(fmt.element.max)), tensor_scale)
    wanted = _rounded(body, body.op("Add", wanted, spoilt), fmt.scale, saturate=True)
    return body.op("Mul", wanted, tensor_scale)


class _Body:
    """The nodes of a function while it is written."""

    def __init__(self) -> None:
        self.input = ir.Value(name="x")
        self.nodes: list[ir.Node] = []

    def op(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return self._add(
            ir.Node("", op_type, inputs, [ir.AttrInt64(name, value) for name, value in attributes.items()])
        )

    def constant(self, value: float) -> ir.Value:
        return self._constant(ir.Tensor(np.array(value, dtype=np.float32)))

    def integers(self, *values: int) -> ir.Value:
        return self._constant(ir.Tensor(np.array(values, dtype=np.int64)))

    def attribute(self, name: str) -> ir.Value:
        """One of the function's attributes as an int64 tensor of one element."""
        scalar = self._add(ir.Node("", "Constant", [], [ir.RefAttr("value_int", name, ir.AttributeType.INT)]))
        return self.op("Reshape", scalar, self.integers(1))

    def join(self, *parts: ir.Value) -> ir.Value:
        """One tensor of one axis from several."""
        return self.op("Concat", *parts, axis=0)

    def product(self, sizes: ir.Value) -> ir.Value:
        """The product of any number of sizes, a tensor of one element."""
        return self.op("ReduceProd", self.join(self.integers(1), sizes))

    def _constant(self, tensor: ir.TensorProtocol) -> ir.Value:
        return self._add(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))

    def _add(self, node: ir.Node) -> ir.Value:
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]
