"""From what the network says of faces to the body of an answer; each face is counted here.

Not its duty: anything that takes time (`service.pipeline`); what the fields mean to a client
(`service.http.schemas`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service.pictures.faces import Face
from service.pictures.pool import Done
from service.queue.ticket import Inference
from service.telemetry.metrics import Metrics
from training.model.manifest import Manifest


class Answers:
    """Names faces in the words of a checkpoint."""

    def __init__(self, manifest: Manifest, metrics: Metrics) -> None:
        """Speak for a checkpoint.

        Args:
            manifest: Its.
            metrics: Told of every face.
        """
        self._manifest = manifest
        self._counts = {
            emotion: (metrics.faces.labels(emotion), metrics.confidence.labels(emotion))
            for emotion in manifest.emotions
        }

    def of_picture(
        self,
        faces: Sequence[Face],
        inferences: Sequence[Inference],
        size: tuple[int, int],
        timing: Mapping[str, float],
    ) -> dict[str, Any]:
        """Return the body that `service.http.schemas.Prediction` describes.

        Args:
            faces: The largest first.
            inferences: One a face.
            size: Width and height of the picture, upright, in pixels.
            timing: Milliseconds by what took them.
        """
        width, height = size
        return {
            "faces": [self._in_picture(*pair) for pair in zip(faces, inferences, strict=True)],
            "image": {"width": width, "height": height},
            "model": {"name": self._manifest.name, "version": self._manifest.version},
            "timing": timing,
        }

    def of_face(self, inference: Inference) -> dict[str, Any]:
        """Return `emotion`, `confidence` and `probabilities` of a face."""
        emotions, values = self._manifest.emotions, inference.probabilities.tolist()
        confidence = max(values)
        emotion = emotions[values.index(confidence)]
        count, confidences = self._counts[emotion]
        count.inc()
        confidences.observe(confidence)
        return {
            "emotion": emotion,
            "confidence": _share(confidence),
            "probabilities": {e: _share(p) for e, p in zip(emotions, values, strict=True)},
        }

    def _in_picture(self, face: Face, inference: Inference) -> dict[str, Any]:
        box = face.box
        return {
            "box": {"x": box.x, "y": box.y, "width": box.width, "height": box.height},
            "detection": None if face.detection is None else _share(face.detection),
        } | self.of_face(inference)


def timing_of(done: Done[Any], inferences: Sequence[Inference], total_s: float) -> dict[str, float]:
    """Return what took how long, in milliseconds.

    Args:
        done: The decoding.
        inferences: One a face.
        total_s: All of it, in seconds.
    """
    queue_s = max((i.queue_s for i in inferences), default=0.0)
    inference_s = max((i.inference_s for i in inferences), default=0.0)
    return {
        "decode_ms": round(1e3 * done.spent_s, 3),
        "queue_ms": round(1e3 * (done.waited_s + queue_s), 3),
        "inference_ms": round(1e3 * inference_s, 3),
        "total_ms": round(1e3 * total_s, 3),
    }


def _share(probability: float) -> float:
    # Beyond the sixth digit the same face differs from one batch size to the next. Rounding in
    # the engine may leave a probability a hair above 1.
    return min(round(probability, 6), 1.0)
