"""Boxes of faces and what overlaps: float32[n, 5] of left, top, right, bottom and confidence.

Not its duty: where they come from.
"""

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""float32[n, 5]: left, top, right and bottom in pixels, and confidence, 0 to 1."""

# From this share of itself in a larger face, a box is a part of it: an eye, a mouth.
_PART = 0.6


def overlaps(box: Boxes, boxes: Boxes) -> npt.NDArray[np.float32]:
    """Return the intersection over union of one box, float32[5], with others: float32[n]."""
    both = _shared(box, boxes)
    return np.asarray(both / np.maximum(_area(box) + _area(boxes) - both, 1e-9), np.float32)


def merge(boxes: Boxes, overlap: float) -> Boxes:
    """Make one box of those that overlap, as MediaPipe does: their mean, weighted by confidence.

    Args:
        boxes: Any number, in any order.
        overlap: Intersection over union from which two are one face, 0 to 1.

    Returns:
        The merged ones, most confident first, each as confident as its most confident.
    """
    rest, kept = boxes[np.argsort(-boxes[:, 4], kind="stable")], []
    while len(rest):
        same = overlaps(rest[0], rest) >= overlap
        same[0] = True
        corners = np.average(rest[same, :4], axis=0, weights=rest[same, 4])
        kept.append(np.append(corners, rest[0, 4]))
        rest = rest[~same]
    return np.asarray(kept, np.float32).reshape(-1, 5)


def without_parts(boxes: Boxes) -> Boxes:
    """Drop each box that lies for the most part in a larger, more confident one.

    Args:
        boxes: Most confident first.
    """
    kept: list[Boxes] = []
    for box in boxes:
        larger = [other for other in kept if _area(other) > _area(box)]
        shared = _shared(box, np.asarray(larger, np.float32).reshape(-1, 5))
        if not np.any(shared > _PART * _area(box)):
            kept.append(box)
    return np.asarray(kept, np.float32).reshape(-1, 5)


def _shared(box: Boxes, boxes: Boxes) -> npt.NDArray[np.float32]:
    size = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    return np.asarray(np.prod(np.clip(size, 0, None), axis=1), np.float32)


def _area(boxes: Boxes) -> npt.NDArray[np.float32]:
    return np.asarray(np.prod(boxes[..., 2:4] - boxes[..., :2], axis=-1), np.float32)
