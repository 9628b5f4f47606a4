"""Rewrite passes, one a file: each takes a model, changes it in place, and keeps its outputs the same in real numbers.

`PREPARE` is the recipe that makes a reference's graph ready for observation and planning; order matters.
"""

from quantbench.graphs.passes.bound_sigmoid import bound_sigmoid
from quantbench.graphs.passes.clean import clean
from quantbench.graphs.passes.factor_gate import factor_gate
from quantbench.graphs.passes.fold_affine import fold_affine
from quantbench.graphs.passes.fold_affine_forward import fold_affine_forward
from quantbench.graphs.passes.fold_constants import fold_constants
from quantbench.graphs.passes.fuse_gemm import fuse_gemm
from quantbench.graphs.passes.fuse_hard_swish import fuse_hard_swish
from quantbench.graphs.passes.fuse_layer_norm import fuse_layer_norm
from quantbench.graphs.passes.give_bias import give_bias
from quantbench.graphs.passes.infer_shapes import infer_shapes
from quantbench.graphs.passes.merge_pointwise import merge_pointwise
from quantbench.graphs.passes.simplify import simplify

__all__ = [
    "PREPARE",
    "bound_sigmoid",
    "clean",
    "factor_gate",
    "fold_affine",
    "fold_affine_forward",
    "fold_constants",
    "fuse_gemm",
    "fuse_hard_swish",
    "fuse_layer_norm",
    "give_bias",
    "infer_shapes",
    "merge_pointwise",
    "simplify",
]

PREPARE = (
    clean,
    fold_constants,
    infer_shapes,
    simplify,
    fuse_gemm,
    fold_affine,
    fuse_hard_swish,
    infer_shapes,
    fuse_layer_norm,
    bound_sigmoid,
    factor_gate,
    fold_affine_forward,
    fold_affine,
    merge_pointwise,
    give_bias,
    clean,
    infer_shapes,
)
