"""Mean average precision by pycocotools, which says a lot on the way."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_map(truth: Path | dict[str, Any], results: list[dict[str, Any]]) -> float:
    """Of results in COCO's form, against an annotation file or what would be in one."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth)) if isinstance(truth, Path) else COCO()
        if not isinstance(truth, Path):
            coco.dataset = truth
            coco.createIndex()
        scored = COCOeval(coco, coco.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(scored.stats[0])
