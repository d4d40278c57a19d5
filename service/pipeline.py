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
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from service.answers import Answers, timing_of
from service.errors import ServiceError
from service.http.problems import problem
from service.pictures.cost import Allowance, Cost
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.pool import DecodePool, Done
from service.pictures.search import FaceSearch
from service.queue.backend import Cancel, InferenceBackend
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
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        allowance: Allowance | None = None,
    ) -> dict[str, Any]:
        """Answer one picture. Cancelling it takes its faces out of the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted.
            allowance: What its request may take of the decoders; None for what the picture may.

        Returns:
            The body that `service.http.schemas.Prediction` describes.

        Raises:
            ServiceError: Any kind that `decode`, the pool or the batcher raises.
        """
        return (await self.recognise(image, deadline, search, allowance=allowance)).body

    def answers_at_once(self, image: bytes | bytearray, search: FaceSearch) -> bool:
        """Tell whether `begin` takes a picture: none of the pool's threads has to work for it.

        Args:
            image: The picture's bytes; anything.
            search: Which of its faces are wanted.
        """
        return self._makes_faces and self._finder.is_quick(image, search)

    def begin(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        tell: Callable[[dict[str, Any] | BaseException], object],
    ) -> Cancel:
        """Do as `predict` does, without waiting for it.

        Args:
            image: The bytes of a picture that `answers_at_once`.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted.
            tell: Called once, later, with what `predict` returns or raises.

        Returns:
            How to take its faces out of the queue.

        Raises:
            ServiceError: Any kind that `decode` or the batcher raises at once.
        """
        began = self._clock()
        decoding = _Decoding(partial(self._decode, image, search), self._clock)

        def on_result(answer: list[Inference] | BaseException) -> None:
            if isinstance(answer, BaseException):
                tell(answer)
                return
            try:
                self._observe(decoding.done)
                body = self._body(decoding.done, answer, began)
            except Exception as error:  # noqa: BLE001 - it is this request's alone
                tell(error)
            else:
                tell(body)

        return self._batcher.enqueue(self._late(decoding), deadline, False, on_result)

    async def recognise(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        explained: bool = False,
        allowance: Allowance | None = None,
    ) -> Recognised:
        """Do as `predict` does; with the parts that the answer was made of.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted.
            explained: Whether each inference is to have its explanation.
            allowance: As of `predict`.

        Raises:
            ServiceError: Any kind that `predict` raises.
        """
        began, decode = self._clock(), partial(self._decode, image, search)
        if self.answers_at_once(image, search):
            done, inferences = await self._in_batch(decode, deadline, explained)
        else:
            allowance = allowance or Allowance(len(image))
            weigh = partial(self.weigh, image, search, allowance)
            done = await self._pool.run(decode, deadline, weigh, allowance.client)
            inferences = await self._classify(done, deadline, explained)
        return Recognised(done.result.faces, inferences, self._body(done, inferences, began))

    def _body(
        self, done: Done[Decoded], inferences: Sequence[Inference], began: float
    ) -> dict[str, Any]:
        decoded, timing = done.result, timing_of(done, inferences, self._clock() - began)
        return self._answers.of_picture(
            decoded.faces, inferences, (decoded.width, decoded.height), timing
        )

    def weigh(self, image: bytes | bytearray, search: FaceSearch, allowance: Allowance) -> Cost:
        """Say what decoding a picture will take, and take it off the allowance; in any thread.

        Args:
            image: The picture's bytes.
            search: Which of its faces are wanted.
            allowance: What its request may take.

        Raises:
            ServiceError: Any kind that `decode` raises before it decodes.
        """
        cost = self._finder.weigh(image, search)
        allowance.spend(cost)
        return cost

    async def _classify(
        self, done: Done[Decoded], deadline: float, explained: bool
    ) -> list[Inference]:
        self._observe(done)
        if not done.result.faces:
            self._metrics.faceless.inc()
            return []
        return await self._batcher.submit(_stack(done.result.faces), deadline, explained)

    async def _in_batch(
        self, decode: Callable[[], Decoded], deadline: float, explained: bool
    ) -> tuple[Done[Decoded], list[Inference]]:
        decoding = _Decoding(decode, self._clock)
        inferences = await self._batcher.submit(self._late(decoding), deadline, explained)
        self._observe(decoding.done)
        return decoding.done, inferences

    def _late(self, decoding: _Decoding) -> DeferredFaces:
        spec = self._manifest.input_spec
        return DeferredFaces(decoding, (1, spec.height, spec.width))

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
        client: Hashable = None,
    ) -> list[dict[str, Any]]:
        """Answer several pictures, each on its own.

        Args:
            uploads: The pictures' bytes, or why there are none.
            deadline: When the answers are of no more use, in the clock's time.
            search: Which faces of each are wanted.
            client: Who asks: the decoders go to each in turn.

        Returns:
            For each, in order, an answer or a problem, as `service.http.schemas.BatchPrediction`
            describes them.

        Raises:
            ServiceError: The service failed on all of them: that is the request's own failure, and
                worth another try as a whole.
        """
        sizes = (len(upload) for upload in uploads if not isinstance(upload, ServiceError))
        allowance = Allowance(sum(sizes), client)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._resolve(upload, deadline, search, allowance))
                for upload in uploads
            ]
        results = [task.result() for task in tasks]
        errors = [result for result in results if isinstance(result, ServiceError)]
        if len(errors) == len(results) and all(error.status >= 500 for error in errors):
            raise errors[0]
        for error in errors:
            self._metrics.rejections.labels(error.code).inc()
        return [problem(r) if isinstance(r, ServiceError) else r for r in results]

    async def _resolve(
        self,
        upload: bytes | bytearray | ServiceError,
        deadline: float,
        search: FaceSearch,
        allowance: Allowance,
    ) -> dict[str, Any] | ServiceError:
        if isinstance(upload, ServiceError):
            return upload
        try:
            return await self.predict(upload, deadline, search, allowance)
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
