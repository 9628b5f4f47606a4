"""Which integer types ONNX Runtime computes fast on this machine: each operator in FP32 and in integers, side by side.

    python benchmarks/kernels.py [CASE…] [--batches 1,16] [--rounds 9] [--json FILE]

Every case is a chain of the same operation, so that what stands at its ends (converting, reordering) counts little. In
integers the chain starts and ends with codes; each operation stands between DequantizeLinear and QuantizeLinear, as the
converter writes it. Printed are FP32's microseconds an operation, and its time over that of the integers: with the
activations' type first and the weights' second, and scales per channel ("c") or per tensor ("t"). "mixed" is the
operation in FP32 between two conversions: what it costs to leave one operation in float among integers. All take turns;
the median of the ratios is given. docs/kernels.md says what the converter does because of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from quantbench.graphs.hard_swish_codes import hard_swish_codes

LENGTH = 4
TURN = 0.02
"""Seconds a turn takes at least."""
CODES = {"u8": np.uint8, "s8": np.int8}
TYPES = {None: TensorProto.FLOAT, "u8": TensorProto.UINT8, "s8": TensorProto.INT8}
WAYS = {
    "u8s8 c": ("u8", "s8", True),
    "u8s8 t": ("u8", "s8", False),
    "s8s8 c": ("s8", "s8", True),
    "s8s8 t": ("s8", "s8", False),
    "u8u8 t": ("u8", "u8", False),
}
"""Activations, weights, and whether weights have a scale a channel."""


@dataclass(frozen=True)
class Case:
    """One operation on a tensor of `shape` (without the batch), which it gives back in the same shape where it can.

    Attributes:
        weight: shape of the weight, its output channels along `axis`; () without.
        others: shapes of further inputs (without the batch); they are computed, not constant.
        on_codes: whether the converter's rewriting of the operation into operations on codes is applied.
        chained: whether each operation reads what the one before it gives; else all read the input.
    """

    name: str
    op_type: str
    shape: tuple[int, ...]
    weight: tuple[int, ...] = ()
    axis: int = 0
    others: tuple[tuple[int, ...], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    chained: bool = True
    on_codes: bool = False


def conv(name: str, channels: int, size: int, kernel: int, groups: int = 1) -> Case:
    pads = [kernel // 2] * 4
    weight = (channels, channels // groups, kernel, kernel)
    return Case(name, "Conv", (channels, size, size), weight, attributes={"pads": pads, "group": groups})


def matmul(name: str, rows: tuple[int, ...], channels: int) -> Case:
    return Case(name, "MatMul", (*rows, channels), (channels, channels), axis=1)


def unary(name: str, op_type: str, shape: tuple[int, ...], chained: bool = True, **attributes: Any) -> Case:
    return Case(name, op_type, shape, attributes=attributes, chained=chained)


MAP, WIDE = (64, 28, 28), (16, 112, 112)
CASES = [
    conv("Conv 3×3 dense 16@112", 16, 112, 3),
    conv("Conv 3×3 dense 64@56", 64, 56, 3),
    conv("Conv 3×3 dense 256@14", 256, 14, 3),
    conv("Conv 1×1 16@112", 16, 112, 1),
    conv("Conv 1×1 96@28", 96, 28, 1),
    conv("Conv 1×1 480@7", 480, 7, 1),
    conv("Conv 1×1 96@1 (gate)", 96, 1, 1),
    conv("Conv 3×3 depthwise 16@112", 16, 112, 3, groups=16),
    conv("Conv 3×3 depthwise 96@28", 96, 28, 3, groups=96),
    conv("Conv 5×5 depthwise 192@14", 192, 14, 5, groups=192),
    Case("Gemm 256", "Gemm", (256,), (256, 256), attributes={"transB": 1}),
    Case("Gemm 1024", "Gemm", (1024,), (1024, 1024), attributes={"transB": 1}),
    matmul("MatMul 40×120", (40,), 120),
    matmul("MatMul 1×256 (recurrent)", (1,), 256),
    Case("Add", "Add", MAP, others=(MAP,)),
    Case("Mul", "Mul", MAP, others=(MAP,)),
    Case("Mul by a gate", "Mul", MAP, others=((64, 1, 1),)),
    Case("Concat", "Concat", MAP, others=(MAP,), attributes={"axis": 1}, chained=False),
    unary("MaxPool 3×3", "MaxPool", MAP, kernel_shape=[3, 3], pads=[1] * 4),
    unary("AveragePool 3×3", "AveragePool", MAP, kernel_shape=[3, 3], pads=[1] * 4),
    unary("GlobalAveragePool", "GlobalAveragePool", MAP, chained=False),
    unary("Relu", "Relu", MAP),
    unary("HardSwish", "HardSwish", MAP),
    Case("HardSwish on codes", "HardSwish", MAP, on_codes=True),
    unary("HardSigmoid", "HardSigmoid", MAP),
    unary("Sigmoid", "Sigmoid", MAP),
    unary("Softmax", "Softmax", (8, 40, 40), axis=-1),
    unary("LayerNormalization", "LayerNormalization", (40, 120), axis=-1),
    unary("Transpose", "Transpose", (28, 64, 28), perm=[0, 3, 2, 1]),
    Case("Resize nearest 2×", "Resize", (96, 20, 20), attributes={"mode": "nearest", "nearest_mode": "floor",
         "coordinate_transformation_mode": "asymmetric"}, chained=False),
    Case("ConvTranspose 2×2", "ConvTranspose", (24, 40, 40), (24, 24, 2, 2), axis=1,
         attributes={"strides": [2, 2]}, chained=False),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="part of a case's name; all without")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"ONNX Runtime {ort.__version__}, {processor()}")
    print(f"{'operation':<28}{'batch':>6}{'fp32 µs':>10}" + "".join(f"{name:>9}" for name in [*WAYS, "mixed"]))
    rows = []
    for case in CASES:
        if options.cases and not any(part in case.name for part in options.cases):
            continue
        for batch in map(int, options.batches.split(",")):
            row = measure(case, batch, options.rounds)
            rows.append(row)
            ratios = "".join("        –" if row[name] is None else f"{row[name]:>8.2f}×" for name in [*WAYS, "mixed"])
            print(f"{case.name:<28}{batch:>6}{row['fp32_us']:>10.1f}{ratios}", flush=True)
    for batch in map(int, options.batches.split(",")):
        for name, nanoseconds in conversions(batch).items():
            rows.append({"operation": name, "batch": batch, "ns": nanoseconds})
            print(f"{name:<28}{batch:>6}{nanoseconds:>10.3f} ns an element")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def processor() -> str:
    """What /proc/cpuinfo calls the processor, and its integer instructions."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return "unknown processor"
    lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    wanted = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
    return f"{facts.get('model name', 'unknown')} ({' '.join(f for f in wanted if f in facts.get('flags', ''))})"


def measure(case: Case, batch: int, rounds: int) -> dict[str, Any]:
    """FP32's microseconds an operation, and how many times as fast each way is; None where it is no other way."""
    runs = {"fp32": opened(chain(case, batch))}
    for name, way in WAYS.items():
        if case.weight or name in ("u8s8 t", "s8s8 t"):  # without weights only the activations differ
            runs[name] = opened(chain(case, batch, *way))
    runs["mixed"] = opened(chain(case, batch, "u8"), fuse=False)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(turn(run))
    ratios = {
        name: statistics.median(exact / other for exact, other in zip(times["fp32"], times[name], strict=True))
        for name in runs
    }
    fp32 = statistics.median(times["fp32"]) / LENGTH * 1e6
    return {
        "operation": case.name,
        "batch": batch,
        "fp32_us": fp32,
        **{name: ratios.get(name) for name in [*WAYS, "mixed"]},
    }


def conversions(batch: int) -> dict[str, float]:
    """Nanoseconds an element of what stands at the border of integers: quantizing and dequantizing a tensor."""
    shape = (batch, *MAP)
    elements = int(np.prod(shape))
    parameters = {"scale": np.float32(0.02), "zero": np.uint8(100)}
    found = {}
    for op_type, source, target in (
        ("QuantizeLinear", TensorProto.FLOAT, TensorProto.UINT8),
        ("DequantizeLinear", TensorProto.UINT8, TensorProto.FLOAT),
    ):
        node = helper.make_node(op_type, ["x", "scale", "zero"], ["y"])
        ends = [helper.make_tensor_value_info("x", source, shape), helper.make_tensor_value_info("y", target, shape)]
        run = opened(finished([node], ends[:1], ends[1:], parameters))
        found[op_type] = statistics.median(turn(run) for _ in range(9)) / elements * 1e9
    return found


def turn(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    run()  # the other ways' turns have cooled the caches
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < TURN:
        run()
        count += 1
    return passed / count


def opened(model: onnx.ModelProto, fuse: bool = True) -> Callable[[], Any]:
    """A session of the model with its inputs at hand; without `fuse` it computes in float between conversions."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        random = np.random.default_rng(0)
        if value.type == "tensor(float)":
            feeds[value.name] = random.normal(size=value.shape).astype(np.float32)
        else:
            feeds[value.name] = random.integers(0, 100, value.shape).astype(value.type[7:-1])
    return lambda: session.run(None, feeds)


def chain(
    case: Case, batch: int, activations: str | None = None, weights: str | None = None, per_channel: bool = False
) -> onnx.ModelProto:
    """`LENGTH` operations in a row, or side by side; None writes activations or weights in FP32."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Any] = parameters_of(case, weights, per_channel)
    if activations is not None:
        lowest = np.iinfo(CODES[activations]).min  # code of −3, from where hard-swish on codes wants them
        constants |= {"scale": np.float32(0.02), "zero": CODES[activations](lowest + 150)}
    kind = TYPES[activations]
    names = ["x", *(f"other{index}" for index in range(len(case.others)))]
    inputs = [
        helper.make_tensor_value_info(name, kind, (batch, *shape))
        for name, shape in zip(names, (case.shape, *case.others), strict=True)
    ]
    results = []
    for link in range(LENGTH):
        operands = list(names)
        if activations is not None:
            operands = [f"{link}_{name}" for name in names]
            nodes += [
                helper.make_node("DequantizeLinear", [name, "scale", "zero"], [real])
                for name, real in zip(names, operands, strict=True)
            ]
        operands += weight_operands(case, link, weights, per_channel, nodes)
        nodes.append(helper.make_node(case.op_type, operands, [f"real{link}"], f"operation{link}", **case.attributes))
        result = f"real{link}"
        if activations is not None:
            result = f"codes{link}"
            nodes.append(helper.make_node("QuantizeLinear", [f"real{link}", "scale", "zero"], [result]))
        results.append(result)
        if case.chained:
            names[0] = result
    outputs = results[-1:] if case.chained else results
    model = finished(nodes, inputs, [helper.make_tensor_value_info(name, kind, None) for name in outputs], constants)
    return ir.to_proto(hard_swish_codes(ir.from_proto(model))) if case.on_codes else model


def parameters_of(case: Case, weights: str | None, per_channel: bool) -> dict[str, Any]:
    """The constants of a case, which all its operations share."""
    if case.op_type == "Resize":
        return {"scales": np.array([1, 1, 2, 2], np.float32)}
    if case.op_type == "LayerNormalization":
        return {"gain": np.ones(case.shape[-1], np.float32)}
    if not case.weight:
        return {}
    channels = case.weight[case.axis] if per_channel else 1
    random = np.random.default_rng(0)
    if weights is None:
        size = np.prod(case.weight) / case.weight[case.axis]
        constants = {"weight": (random.normal(size=case.weight) / np.sqrt(size)).astype(np.float32)}
    else:
        dtype = CODES[weights]
        constants = {
            "weight": random.integers(28 if weights == "u8" else -100, 228 if weights == "u8" else 100, case.weight),
            "weight_scale": np.full(channels, 1e-3, np.float32),
            "weight_zero": np.full(channels, 128 if weights == "u8" else 0, dtype),
        }
        constants["weight"] = constants["weight"].astype(dtype)
    if case.op_type != "MatMul":  # a bias, as every layer has
        bias = np.zeros(case.weight[case.axis], np.float32 if weights is None else np.int32)
        constants |= {"bias": bias} | ({} if weights is None else {"bias_scale": np.full(channels, 2e-5, np.float32)})
    if not per_channel:
        constants = {
            key: array.reshape(()) if key.endswith(("_scale", "_zero")) else array for key, array in constants.items()
        }
    return constants


def weight_operands(
    case: Case, link: int, weights: str | None, per_channel: bool, nodes: list[onnx.NodeProto]
) -> list[str]:
    """What an operation reads behind its activations."""
    if case.op_type == "Resize":
        return ["", "scales"]
    if case.op_type == "LayerNormalization":
        return ["gain"]
    if not case.weight:
        return []
    names = ["weight"] + ([] if case.op_type == "MatMul" else ["bias"])
    if weights is None:
        return names
    for name, more, axis in (("weight", ["weight_zero"], case.axis), ("bias", [], 0))[: len(names)]:
        attributes = {"axis": axis} if per_channel else {}
        inputs = [name, f"{name}_scale", *more]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{link}_{name}"], **attributes))
    return [f"{link}_{name}" for name in names]


def finished(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "chain", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


if __name__ == "__main__":
    main()
