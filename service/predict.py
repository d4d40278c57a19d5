"""The way of one picture through the service: decoded, its faces found, classified, answered.

    bytes ─▶ decode ─▶ find faces ─▶ batcher ─▶ answer
             (thread)   (thread)     (worker)   (loop)

Not its duty: HTTP; who waits for the answer, and for how long.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import ServiceError
from service.http.problems import problem
from service.inference.batcher import Batcher, Inference
from service.observe.metrics import Metrics
from service.pictures.decode import decode
from service.pictures.faces import Face, find_faces
from service.pictures.pool import DecodePool, Done
from training.model.checkpoint import Manifest


@dataclass(frozen=True)
class Decoded:
    """The faces of one picture, and the picture's size in pixels, upright."""

    faces: list[Face]
    width: int
    height: int


class Predictor:
    """Answers pictures; used on the event loop alone."""

    def __init__(
        self,
        manifest: Manifest,
        batcher: Batcher,
        pool: DecodePool,
        metrics: Metrics,
        max_pixels: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            manifest: Of the checkpoint that the batcher's engine runs.
            batcher: Classifies faces; started.
            pool: Decodes pictures.
            metrics: Told of every picture and face.
            max_pixels: Most pixels of a picture.
            clock: Seconds, as deadlines count them.
        """
        self._manifest = manifest
        self._batcher = batcher
        self._pool = pool
        self._metrics = metrics
        self._max_pixels = max_pixels
        self._clock = clock

    async def predict(self, image: bytes | bytearray, deadline: float) -> dict[str, Any]:
        """Answer one picture. Cancelling it takes its faces out of the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.

        Returns:
            The body that `service.http.schemas.Prediction` describes.

        Raises:
            ServiceError: Any kind that `decode`, the pool or the batcher raises.
        """
        began = self._clock()
        done = await self._pool.run(lambda: self._decode(image), deadline)
        self._metrics.stage_seconds.labels("decode").observe(done.spent_s)
        self._metrics.image_pixels.observe(done.result.width * done.result.height)
        faces = done.result.faces
        inferences: list[Inference] = []
        if faces:
            pixels = np.stack([face.pixels for face in faces])
            inferences = await self._batcher.submit(pixels, deadline)
        return {
            "faces": [self._face(*pair) for pair in zip(faces, inferences, strict=True)],
            "image": {"width": done.result.width, "height": done.result.height},
            "model": {"name": self._manifest.name, "version": self._manifest.version},
            "timing": _timing(done, inferences, self._clock() - began),
        }

    async def predict_many(
        self, uploads: Sequence[bytes | bytearray | ServiceError], deadline: float
    ) -> list[dict[str, Any]]:
        """Answer several pictures, each on its own.

        Args:
            uploads: The pictures' bytes, or why there are none.
            deadline: When the answers are of no more use, in the clock's time.

        Returns:
            For each, in order, an answer or a problem, as `service.http.schemas.BatchPrediction`
            describes them.

        Raises:
            ServiceError: The service failed on all of them: that is the request's own failure, and
                worth another try as a whole.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._settle(upload, deadline)) for upload in uploads]
        results = [task.result() for task in tasks]
        errors = [result for result in results if isinstance(result, ServiceError)]
        if len(errors) == len(results) and all(error.status >= 500 for error in errors):
            raise errors[0]
        for error in errors:
            self._metrics.rejections.labels(error.code).inc()
        return [problem(r) if isinstance(r, ServiceError) else r for r in results]

    async def _settle(
        self, upload: bytes | bytearray | ServiceError, deadline: float
    ) -> dict[str, Any] | ServiceError:
        if isinstance(upload, ServiceError):
            return upload
        try:
            return await self.predict(upload, deadline)
        except ServiceError as error:
            return error

    def _decode(self, image: bytes | bytearray) -> Decoded:
        """Run in a thread of the pool."""
        spec = self._manifest.input_spec
        picture = decode(image, spec, self._max_pixels)
        return Decoded(find_faces(picture, spec), picture.width, picture.height)

    def _face(self, face: Face, inference: Inference) -> dict[str, Any]:
        emotions, values = self._manifest.emotions, inference.probabilities.tolist()
        confidence = max(values)
        emotion = emotions[values.index(confidence)]
        self._metrics.faces.labels(emotion).inc()
        self._metrics.confidence.labels(emotion).observe(confidence)
        box = face.box
        return {
            "box": {"x": box.x, "y": box.y, "width": box.width, "height": box.height},
            "emotion": emotion,
            "confidence": _share(confidence),
            "probabilities": {e: _share(p) for e, p in zip(emotions, values, strict=True)},
        }


def _share(probability: float) -> float:
    # Beyond the sixth digit the same face differs from one batch size to the next. Rounding in
    # the engine may leave a probability a hair above 1.
    return min(round(probability, 6), 1.0)


def _timing(
    done: Done[Decoded], inferences: Sequence[Inference], total_s: float
) -> dict[str, float]:
    queue_s = max((i.queue_s for i in inferences), default=0.0)
    inference_s = max((i.inference_s for i in inferences), default=0.0)
    return {
        "decode_ms": round(1e3 * done.spent_s, 3),
        "queue_ms": round(1e3 * (done.waited_s + queue_s), 3),
        "inference_ms": round(1e3 * inference_s, 3),
        "total_ms": round(1e3 * total_s, 3),
    }
