"""top1-agreement: the share of samples whose class is the one that the FP32 model chose. No accuracy: nothing is
labelled."""

from quantbench.metrics.kinds.top1 import measure

__all__ = ["measure"]
