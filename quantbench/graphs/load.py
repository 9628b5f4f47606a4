"""From a reference's files to graphs that are checked and made ready."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.passes import PREPARE
from quantbench.references import Reference, source_models

__all__ = ["OPSET", "check", "load_graphs", "prepare"]

OPSET = 21
"""The opset that graphs are raised to: the first with 4- and 16-bit, and blocked, QuantizeLinear."""

_LARGE = 1 << 10
"""Elements of a weight from which it is kept from what does not need it."""

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}


def load_graphs(reference: Reference) -> dict[str, ir.Model]:
    """The reference's graphs by name, checked and prepared.

    Raises:
        MissingError: the model is not there.
        InputError: it cannot be used; the sentence says which file and what is wrong.
    """
    models = source_models(reference)
    for name, model in models.items():
        check(model, f"{reference.name}'s graph {name}")
    wanted = reference.model.output
    outputs = [value.name for value in next(iter(models.values())).graph.output]
    if wanted is not None and wanted not in outputs:
        raise InputError(
            f"{reference.name}: [model] output {wanted!r} is not in the graph; it has {', '.join(outputs)}"
        )
    return {name: prepare(model) for name, model in models.items()}


def check(model: onnx.ModelProto, what: str) -> None:
    """Refuse what cannot be converted.

    Raises:
        InputError: not valid ONNX, an operator domain that ONNX Runtime does not know, NaN or infinity in a weight.
    """
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's errors share no useful base class
        if not _domain_problem(model):
            raise InputError(f"{what} is not valid ONNX: {str(error).strip().splitlines()[0]}") from error
    unknown = _domain_problem(model)
    if unknown:
        raise InputError(f"{what} uses operator {unknown}, a domain that ONNX Runtime does not know")
    for tensor in _tensors(model.graph):
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            array = onnx.numpy_helper.to_array(tensor)
            if not np.isfinite(array).all():
                raise InputError(f"{what}: weight {tensor.name} holds NaN or infinity")


def prepare(model: onnx.ModelProto) -> ir.Model:
    """Raise the opset to 21, then run the passes of `PREPARE`. The outputs stay the same in real numbers.

    Raises:
        InputError: the opset cannot be raised.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    graph = _raised(model) if versions.get("", OPSET) < OPSET else ir.from_proto(model)
    graph.ir_version = max(graph.ir_version, 10)  # the first with 4-bit integers
    _detach(graph)
    for rewrite in PREPARE:
        rewrite(graph)
    return graph.clone()  # onnx_ir keeps whatever once was a graph's input, weights of old opsets among them


def _raised(model: onnx.ModelProto) -> ir.Model:
    """The graph in opset 21. The converter copies what it is given several times, so it gets large weights as inputs:
    none of its changes depends on their values."""
    light = ir.from_proto(model)
    weights = light.graph.initializers
    large = {name: tensor for name, value in weights.items() if (tensor := value.const_value) and tensor.size > _LARGE}
    given = {value.name for value in light.graph.inputs}
    for name in large:
        value = weights.pop(name)
        value.const_value = None
        if name not in given:
            light.graph.inputs.append(value)
    try:
        raised = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(light), OPSET))
    except Exception as error:  # RuntimeError or ConvertError, by version of onnx
        found = light.opset_imports.get("")
        raise InputError(f"the graph's opset {found} cannot be raised to {OPSET}: {error}") from error
    for value in list(raised.graph.inputs):
        if value.name in large:
            value.const_value = large[value.name]
            raised.graph.register_initializer(value)
            if value.name not in given:
                raised.graph.inputs.remove(value)
    return raised


def _detach(model: ir.Model) -> None:
    """Copy tensors out of the protobuf, which can then be freed: one that is left keeps all its memory."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
        for node in graph:
            for name, attribute in node.attributes.items():
                tensor = attribute.value  # `as_tensor` checks a protocol, which takes longer than all else here
                if attribute.type == ir.AttributeType.TENSOR and tensor.dtype != ir.DataType.STRING:
                    node.attributes[name] = ir.AttrTensor(name, ir.Tensor(tensor.numpy(), name=tensor.name))


def _domain_problem(model: onnx.ModelProto) -> str | None:
    local = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in local:
            return f"{node.domain}.{node.op_type}"
    return None


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    constants = [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return [*graph.initializer, *constants]
