"""The way of one picture through the service: decoded, its faces found, classified, answered.

    bytes ─▶ decode ─▶ find faces ─▶ batcher ─▶ answer
             (thread)   (thread)     (worker)   (loop)

Where the worker shares a core with those threads, it decodes quick pictures itself as it takes them
into a batch: a wake-up of a thread and one of the loop less, a tenth more requests a second from 8
clients and a fourteenth from 64. Where the engine is another process, the loop does it likewise.

Not its duty: HTTP; who waits for the answer, and for how long.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from service.answers import Answers, timing_of
from service.errors import ServiceError
from service.http.problems import problem
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.pool import DecodePool, Done
from service.pictures.search import FaceSearch
from service.queue.backend import InferenceBackend
from service.queue.ticket import DeferredFaces, Faces, Inference
from service.telemetry.metrics import Metrics
from training.model.manifest import Manifest


@dataclass(frozen=True)
class Decoded:
    """The faces of one picture, and the picture's size in pixels, upright."""

    faces: list[Face]
    width: int
    height: int


@dataclass(frozen=True)
class Recognised:
    """One picture's faces and what they were taken for.

    Attributes:
        faces: The largest first.
        inferences: One a face.
        body: What `service.http.schemas.Prediction` describes.
    """

    faces: list[Face]
    inferences: list[Inference]
    body: dict[str, Any]


class _Decoding:
    """One picture that is one face, decoded by whoever makes its faces."""

    def __init__(self, decode: Callable[[], Decoded], clock: Callable[[], float]) -> None:
        self._decode, self._clock = decode, clock
        self.done: Done[Decoded]

    def __call__(self) -> Faces:
        began = self._clock()
        decoded = self._decode()
        self.done = Done(decoded, 0.0, self._clock() - began)
        return _stack(decoded.faces)


class Predictor:
    """Answers pictures; used on the event loop alone."""

    def __init__(
        self,
        manifest: Manifest,
        batcher: InferenceBackend,
        pool: DecodePool,
        metrics: Metrics,
        finder: FaceFinder,
        makes_faces: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            manifest: Of the checkpoint that the batcher's engine runs.
            batcher: Classifies faces; started.
            pool: Decodes pictures.
            metrics: Told of every picture and face.
            finder: Finds the faces of pictures, in the pool's threads.
            makes_faces: Whether the batcher is to decode quick pictures as it takes their faces.
            clock: Seconds, as deadlines count them.
        """
        self._manifest, self._metrics = manifest, metrics
        self._batcher, self._pool, self._finder = batcher, pool, finder
        self._makes_faces = makes_faces
        self._clock = clock
        self._answers = Answers(manifest, metrics)

    @property
    def manifest(self) -> Manifest:
        """Of the checkpoint that answers."""
        return self._manifest

    async def predict(
        self, image: bytes | bytearray, deadline: float, search: FaceSearch
    ) -> dict[str, Any]:
        """Answer one picture. Cancelling it takes its faces out of the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted.

        Returns:
            The body that `service.http.schemas.Prediction` describes.

        Raises:
            ServiceError: Any kind that `decode`, the pool or the batcher raises.
        """
        return (await self.recognise(image, deadline, search)).body

    async def recognise(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        explained: bool = False,
    ) -> Recognised:
        """Do as `predict` does; with the parts that the answer was made of.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted.
            explained: Whether each inference is to have its explanation.

        Raises:
            ServiceError: Any kind that `predict` raises.
        """
        began, decode = self._clock(), partial(self._decode, image, search)
        quick = self._makes_faces and self._finder.is_quick(image, search)
        how = self._in_batch if quick else self._in_pool
        done, inferences = await how(decode, deadline, explained)
        decoded, timing = done.result, timing_of(done, inferences, self._clock() - began)
        body = self._answers.of_picture(
            decoded.faces, inferences, (decoded.width, decoded.height), timing
        )
        return Recognised(decoded.faces, inferences, body)

    async def _in_pool(
        self, decode: Callable[[], Decoded], deadline: float, explained: bool
    ) -> tuple[Done[Decoded], list[Inference]]:
        done = await self._pool.run(decode, deadline)
        self._observe(done)
        if not done.result.faces:
            self._metrics.faceless.inc()
            return done, []
        faces = _stack(done.result.faces)
        return done, await self._batcher.submit(faces, deadline, explained)

    async def _in_batch(
        self, decode: Callable[[], Decoded], deadline: float, explained: bool
    ) -> tuple[Done[Decoded], list[Inference]]:
        decoding = _Decoding(decode, self._clock)
        spec = self._manifest.input_spec
        late = DeferredFaces(decoding, (1, spec.height, spec.width))
        inferences = await self._batcher.submit(late, deadline, explained)
        self._observe(decoding.done)
        return decoding.done, inferences

    async def classify(self, faces: npt.NDArray[np.uint8], deadline: float) -> list[dict[str, Any]]:
        """Answer faces that are cut out already. Cancelling it takes them out of the queue.

        Args:
            faces: uint8[n, h, w], 0-255, grey, of the checkpoint's height and width.
            deadline: When the answer is of no more use, in the clock's time.

        Returns:
            For each, in order, `emotion`, `confidence` and `probabilities`.

        Raises:
            ServiceError: Any kind that the batcher raises.
        """
        inferences = await self._batcher.submit(faces, deadline)
        return [self._answers.of_face(inference) for inference in inferences]

    async def predict_many(
        self,
        uploads: Sequence[bytes | bytearray | ServiceError],
        deadline: float,
        search: FaceSearch,
    ) -> list[dict[str, Any]]:
        """Answer several pictures, each on its own.

        Args:
            uploads: The pictures' bytes, or why there are none.
            deadline: When the answers are of no more use, in the clock's time.
            search: Which faces of each are wanted.

        Returns:
            For each, in order, an answer or a problem, as `service.http.schemas.BatchPrediction`
            describes them.

        Raises:
            ServiceError: The service failed on all of them: that is the request's own failure, and
                worth another try as a whole.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._resolve(upload, deadline, search)) for upload in uploads
            ]
        results = [task.result() for task in tasks]
        errors = [result for result in results if isinstance(result, ServiceError)]
        if len(errors) == len(results) and all(error.status >= 500 for error in errors):
            raise errors[0]
        for error in errors:
            self._metrics.rejections.labels(error.code).inc()
        return [problem(r) if isinstance(r, ServiceError) else r for r in results]

    async def _resolve(
        self, upload: bytes | bytearray | ServiceError, deadline: float, search: FaceSearch
    ) -> dict[str, Any] | ServiceError:
        if isinstance(upload, ServiceError):
            return upload
        try:
            return await self.predict(upload, deadline, search)
        except ServiceError as error:
            return error

    def _decode(self, image: bytes | bytearray, search: FaceSearch) -> Decoded:
        """Run in a thread of the pool; lets go of the picture."""
        found = self._finder.find(image, search)
        return Decoded(found.faces, found.picture.width, found.picture.height)

    def _observe(self, done: Done[Decoded]) -> None:
        self._metrics.stage["decode"].observe(done.spent_s)
        self._metrics.image_pixels.observe(done.result.width * done.result.height)


def _stack(faces: Sequence[Face]) -> npt.NDArray[np.uint8]:
    if len(faces) == 1:  # as mostly; `stack` gives up the interpreter's lock for its 2 kB
        return faces[0].pixels[np.newaxis]
    return np.stack([face.pixels for face in faces])
