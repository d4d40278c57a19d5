"""The pipeline of one picture: decode it, find its faces, classify them.

    bytes ─▶ decode, find faces ─▶ queue ─▶ engine ─▶ prior ─▶ Prediction
             (a decoder's thread)  (loop)   (worker)  (loop)

Used on the event loop; knows neither HTTP nor JSON.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.engine.contract import Faces, Probabilities
from service.engine.explanation import Explanation
from service.engine.prior import Prior, Priors
from service.errors import ServiceError
from service.pictures.cost import Allowance, Cost
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder, Found
from service.pictures.pool import DecodePool, Done
from service.pictures.search import FaceSearch
from service.queue.backend import InferenceBackend
from service.queue.ticket import Inference
from service.telemetry.metrics import Metrics
from training.model.prior import reweigh


@dataclass(frozen=True)
class Expression:
    """The classification of a face.

    Attributes:
        emotion: The most probable one under the answer's prior.
        confidence: Its probability, 0 to 1.
        probabilities: Of each emotion, in the manifest's order, under that prior.
        explanation: None unless requested.
    """

    emotion: str
    confidence: float
    probabilities: Mapping[str, float]
    explanation: Explanation | None = None


@dataclass(frozen=True)
class RecognisedFace:
    """A face in a picture, and its expression."""

    face: Face
    expression: Expression


@dataclass(frozen=True)
class Timing:
    """The durations of a prediction, in seconds.

    Attributes:
        decode_s: Decoding the picture and finding its faces.
        queue_s: Waiting for a decoder and for the engine; the longest of its faces.
        inference_s: Inference of the whole batch; the longest of its faces.
        total_s: From start to end.
    """

    decode_s: float
    queue_s: float
    inference_s: float
    total_s: float


@dataclass(frozen=True)
class Prediction:
    """The result for a picture.

    Attributes:
        faces: The largest first.
        faces_found: The number of faces in the picture; `faces` has at most as many as asked for.
        truncated: Whether faces may be missing: more were found than asked for, or the picture has
            more doubtful places than a search may look at.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        timing: The durations of the stages.
        prior: That its expressions are under.
    """

    faces: Sequence[RecognisedFace]
    faces_found: int
    truncated: bool
    width: int
    height: int
    timing: Timing
    prior: Prior


class Predictor:
    """Classifies the faces of pictures; used on the event loop only."""

    def __init__(
        self,
        priors: Priors,
        backend: InferenceBackend,
        pool: DecodePool,
        metrics: Metrics,
        finder: FaceFinder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the predictor.

        Args:
            priors: Of the checkpoint that the backend's engine runs.
            backend: Classifies faces; started.
            pool: Decodes pictures.
            metrics: Records every picture and face.
            finder: Finds the faces of pictures, in the pool's threads.
            clock: Seconds, in the time of the deadlines.
        """
        self.priors, self.manifest, self._metrics = priors, priors.manifest, metrics
        self._backend, self._pool, self._finder = backend, pool, finder
        self._clock = clock
        self._counts = {
            emotion: (metrics.faces.labels(emotion), metrics.confidence.labels(emotion))
            for emotion in self.manifest.emotions
        }

    async def predict(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        allowance: Allowance | None = None,
        prior: Prior | None = None,
        explained: bool = False,
    ) -> Prediction:
        """Classify the faces of one picture. Cancelling the task removes them from the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no use any more, in the clock's time.
            search: Which faces to find.
            allowance: The decoding budget of its request; None is that of a single picture.
            prior: To answer under; None is the default.
            explained: Whether each expression includes its explanation.

        Raises:
            ServiceError: As `decode`, the pool or the backend raises.
        """
        began = self._clock()
        prior = prior or self.priors.default
        allowance = allowance or Allowance(len(image))
        find = partial(self._find, image, search)
        weigh = partial(self.weigh, image, search, allowance)
        done = await self._pool.run(find, deadline, weigh, allowance.client)
        found = done.result
        self._observe(done)
        allowance.on_faces(len(found.faces))
        if not found.faces:
            self._metrics.faceless.inc()
        if found.truncated:
            self._metrics.truncated.inc()
        under = prior.adjustment if explained else None
        inferences = await self._backend.submit(_stack(found.faces), deadline, under)
        expressions = self._name(inferences, prior)
        faces = [RecognisedFace(*pair) for pair in zip(found.faces, expressions, strict=True)]
        timing = _timing(done, inferences, self._clock() - began)
        size = found.picture.width, found.picture.height
        return Prediction(faces, found.faces_found, found.truncated, *size, timing, prior)

    async def predict_many(
        self,
        uploads: Sequence[bytes | bytearray | ServiceError],
        deadline: float,
        search: FaceSearch,
        allowance: Allowance,
        prior: Prior | None = None,
    ) -> list[Prediction | ServiceError]:
        """Classify the faces of several pictures; each picture may fail alone.

        Args:
            uploads: The pictures' bytes, or the error of an upload.
            deadline: When the answers are of no use any more, in the clock's time.
            search: Which faces to find in each.
            allowance: The decoding budget of the request.
            prior: To answer under; None is the default.

        Returns:
            For each, in order, its result or its error.

        Raises:
            ServiceError: All failed with a server error (5xx): the whole request fails, and can be
                retried.
        """

        async def answer(upload: bytes | bytearray | ServiceError) -> Prediction | ServiceError:
            if isinstance(upload, ServiceError):
                return upload
            try:
                return await self.predict(upload, deadline, search, allowance, prior)
            except ServiceError as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(upload)) for upload in uploads]
        results = [task.result() for task in tasks]
        errors = [result for result in results if isinstance(result, ServiceError)]
        if len(errors) == len(results) and all(error.status >= 500 for error in errors):
            raise errors[0]
        for error in errors:
            self._metrics.rejections.labels(error.code).inc()
        return results

    async def classify(
        self, faces: Faces, deadline: float, prior: Prior | None = None
    ) -> list[Expression]:
        """Classify cropped faces. Cancelling the task removes them from the queue.

        Args:
            faces: uint8[n, h, w], 0-255, grey, of the checkpoint's height and width.
            deadline: When the answer is of no use any more, in the clock's time.
            prior: To answer under; None is the default.

        Raises:
            ServiceError: As the backend raises.
        """
        inferences = await self._backend.submit(faces, deadline)
        return self._name(inferences, prior or self.priors.default)

    def weigh(self, image: bytes | bytearray, search: FaceSearch, allowance: Allowance) -> Cost:
        """Estimate the cost of decoding a picture, and spend it from the allowance; thread-safe.

        Args:
            image: The picture's bytes.
            search: Which faces to find.
            allowance: The decoding budget of its request.

        Raises:
            ServiceError: As `decode` raises before it decodes.
        """
        cost = self._finder.weigh(image, search)
        allowance.spend(cost)
        return cost

    def _find(self, image: bytes | bytearray, search: FaceSearch) -> Found:
        """Decode a picture and find its faces, in a thread of the pool."""
        return self._finder.find(image, search)

    def _observe(self, done: Done[Found]) -> None:
        picture = done.result.picture
        self._metrics.stage["decode"].observe(done.spent_s)
        self._metrics.image_pixels.observe(picture.width * picture.height)

    def _name(self, inferences: Sequence[Inference], prior: Prior) -> list[Expression]:
        """Return the expressions for an engine's results under a prior, and record them."""
        if not inferences:
            return []
        rows = reweigh(np.array([one.probabilities for one in inferences]), prior.adjustment)
        return [
            self._express(row, one.explanation) for row, one in zip(rows, inferences, strict=True)
        ]

    def _express(self, row: Probabilities, explanation: Explanation | None) -> Expression:
        probabilities = self._by_emotion(row)
        emotion = max(probabilities, key=probabilities.__getitem__)
        confidence = probabilities[emotion]
        count, confidences = self._counts[emotion]
        count.inc()
        confidences.observe(confidence)
        return Expression(emotion, confidence, probabilities, explanation)

    def _by_emotion(self, probabilities: Probabilities) -> dict[str, float]:
        # Rounding may make a probability slightly larger than 1.
        values = (min(value, 1.0) for value in probabilities.tolist())
        return dict(zip(self.manifest.emotions, values, strict=True))


def _stack(faces: Sequence[Face]) -> Faces:
    if not faces:
        return np.empty((0, 1, 1), np.uint8)
    return np.array([face.pixels for face in faces])


def _timing(done: Done[Found], inferences: Sequence[Inference], total_s: float) -> Timing:
    queue_s = max((one.queue_s for one in inferences), default=0.0)
    inference_s = max((one.inference_s for one in inferences), default=0.0)
    return Timing(done.spent_s, done.waited_s + queue_s, inference_s, total_s)
