"""Kernels of COCO average precision: matching boxes, and the area under weighted precision–recall curves.

Both follow pycocotools' `COCOeval` (`evaluateImg`, `accumulate`) in every comparison, ties included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

__all__ = ["average_precision", "match"]

Array = NDArray[Any]

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_EPS = np.spacing(1.0)


def match(found: Array, labelled: Array, crowd: Array) -> tuple[Array, Array]:
    """Which detections of one image and class find a labelled box, and which fall into a crowd and do not count.

    Args:
        found: (d, 4) float64 x, y, width, height, the best score first.
        labelled: (g, 4) float64, likewise, in the order of the annotations.
        crowd: (g,) bool, whether the box is around a crowd: it need not be found, and takes any number of detections.

    Returns:
        two (10, d) bool, one row for each IoU threshold: in the order of their scores, detections take the labelled box
        that they overlap most among those not taken; those that only a crowd is left for are ignored.
    """
    order = np.argsort(crowd, kind="stable")
    hits, ignored = _match(found, np.ascontiguousarray(labelled[order]), crowd[order], _IOU_THRESHOLDS)
    return hits, ignored


def average_precision(counts: Array, image: Array, hit: Array, ignored: Array, labelled: Array) -> Array:
    """Average precision of one class in resamples of images: the mean over IoU thresholds and 101 recalls.

    Args:
        counts: (resamples, n) int64, how often each image was drawn.
        image: (d,) int64, the image of each detection, the best score first.
        hit: (10, d) bool, whether the detection found a labelled box.
        ignored: (10, d) bool, whether the detection does not count.
        labelled: (n,) int64, boxes to find in each image.

    Returns:
        (resamples,) float64; NaN where no image drawn has a box to find.
    """
    hits, ends = _positions(hit)
    left_out, left_out_ends = _positions(ignored)
    values: Array = _average_precision(
        np.ascontiguousarray(counts), image, hits, ends, left_out, left_out_ends, labelled, _RECALLS, _EPS
    )
    return values


def _positions(marked: Array) -> tuple[Array, Array]:
    """The detections marked at each threshold, one list behind the other, and where each list ends."""
    threshold, positions = np.nonzero(marked)
    return positions, np.searchsorted(threshold, np.arange(len(marked)), side="right")


@njit(cache=True, nogil=True)
def _match(found: Array, labelled: Array, crowd: Array, thresholds: Array) -> tuple[Array, Array]:
    hits = np.zeros((len(thresholds), len(found)), np.bool_)
    ignored = np.zeros((len(thresholds), len(found)), np.bool_)
    overlaps = np.zeros((len(found), len(labelled)))
    for d in range(len(found)):
        for g in range(len(labelled)):
            overlaps[d, g] = _iou(found[d], labelled[g], crowd[g])
    for t in range(len(thresholds)):
        taken = np.zeros(len(labelled), np.bool_)
        for d in range(len(found)):
            best, chosen = min(thresholds[t], 1 - 1e-10), -1
            for g in range(len(labelled)):  # crowds come last
                if chosen >= 0 and crowd[g] and not crowd[chosen]:
                    break
                if (crowd[g] or not taken[g]) and overlaps[d, g] >= best:  # of equal overlaps the last, as COCOeval
                    best, chosen = overlaps[d, g], g
            if chosen >= 0:
                taken[chosen] = True
                hits[t, d] = not crowd[chosen]
                ignored[t, d] = crowd[chosen]
    return hits, ignored


@njit(cache=True, nogil=True)
def _iou(a: Array, b: Array, crowd: bool) -> float:
    """Intersection over union; over the area of `a` alone where `b` is a crowd. As pycocotools' bbIou rounds."""
    w = min(a[2] + a[0], b[2] + b[0]) - max(a[0], b[0])
    h = min(a[3] + a[1], b[3] + b[1]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = a[2] * a[3]
    return float(w * h / (area if crowd else area + b[2] * b[3] - w * h))


@njit(cache=True, nogil=True, parallel=True)
def _average_precision(
    counts: Array,
    image: Array,
    hits: Array,
    ends: Array,
    ignored: Array,
    ignored_ends: Array,
    labelled: Array,
    recalls: Array,
    eps: float,
) -> Array:
    values = np.empty(len(counts))
    for b in prange(len(counts)):
        positives = 0
        for n in range(len(labelled)):
            positives += counts[b, n] * labelled[n]
        if positives == 0:
            values[b] = np.nan
            continue
        needed = _needed(recalls, positives)
        weights = np.empty(len(image), np.int64)
        drawn = np.empty(len(image), np.int64)  # detections up to this one
        running = 0
        for d in range(len(image)):
            weights[d] = counts[b, image[d]]
            running += weights[d]
            drawn[d] = running
        total = 0.0
        start, ignored_start = 0, 0
        for t in range(len(ends)):
            counted = drawn
            if ignored_ends[t] > ignored_start:
                counted = _without(drawn, weights, ignored[ignored_start : ignored_ends[t]])
            total += _area(weights, counted, hits[start : ends[t]], needed, eps)
            start, ignored_start = ends[t], ignored_ends[t]
        values[b] = total / (len(ends) * len(recalls))
    return values


@njit(cache=True, nogil=True)
def _without(drawn: Array, weights: Array, ignored: Array) -> Array:
    """The running number of detections drawn, without those ignored."""
    counted = drawn.copy()
    left_out = 0
    for i in range(len(ignored)):
        left_out += weights[ignored[i]]
        end = ignored[i + 1] if i + 1 < len(ignored) else len(drawn)
        for d in range(ignored[i], end):
            counted[d] -= left_out
    return counted


@njit(cache=True, nogil=True)
def _needed(recalls: Array, positives: int) -> Array:
    """The fewest hits that reach each recall, by the same floating-point comparison as COCOeval's searchsorted."""
    needed = np.empty(len(recalls), np.int64)
    for k in range(len(recalls)):
        hits = max(int(recalls[k] * positives) - 1, 0)
        while hits / positives < recalls[k]:
            hits += 1
        needed[k] = hits
    return needed


@njit(cache=True, nogil=True)
def _area(weights: Array, drawn: Array, hits: Array, needed: Array, eps: float) -> float:
    """Sum over the recalls of the best precision at that recall or beyond.

    Runs from the worst score to the best, so that the best precision beyond is at hand. Precision rises only at hits,
    and within the copies of one hit, so only a hit's last copy can be the best. A hit that was not drawn repeats the
    precision of the detection drawn before it, which changes nothing: leaving it in saves an unpredictable branch.
    """
    found = 0
    for d in hits:
        found += weights[d]
    k = len(needed) - 1
    while k >= 0 and needed[k] > found:  # never reached: precision 0
        k -= 1
    best = 0.0
    total = 0.0
    for i in range(len(hits) - 1, -1, -1):
        d = hits[i]
        best = max(best, found / (drawn[d] + eps))
        found -= weights[d]
        while k >= 0 and needed[k] > found:
            total += best
            k -= 1
    return total + best * (k + 1)
