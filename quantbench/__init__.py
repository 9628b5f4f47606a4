"""Reduced-precision variants of ONNX models: converted, scored, gated, run."""
