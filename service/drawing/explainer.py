"""Explains a picture: predicts with explanations, then draws them.

    bytes ─▶ Prediction with explanations ─▶ Drawing ─▶ rendered result
             (queue, engine)                 (a decoder's thread)

`service.engine.evidence` computes the explanations.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from service.drawing.figure import draw_figure, draw_tiles
from service.drawing.frames import Straightening, describe
from service.drawing.overlay import draw_overlay, to_png
from service.drawing.paint import Subject
from service.engine.prior import Prior
from service.pictures.cost import Allowance
from service.pictures.decode import Picture, decode
from service.pictures.pool import DecodePool
from service.pictures.search import FaceSearch
from service.pipeline import Prediction, Predictor, RecognisedFace
from service.telemetry.metrics import Metrics
from training.model.manifest import Manifest

MAX_FACES = 16
"""Most faces of one picture that are explained, the largest first."""

# A picture is decoded again for drawing, since keeping it while its faces wait would take a
# megabyte per request. It is decoded as for a search, which keeps more detail.
_DETAILED = FaceSearch("always")

Rendered = TypeVar("Rendered")


@dataclass(frozen=True)
class Tiles:
    """Three pictures of one face, each a PNG.

    Attributes:
        straightened: The crop after the spatial transformer.
        attention: The crop with the attention map.
        evidence: The crop with the evidence for the emotion.
    """

    straightened: bytes
    attention: bytes
    evidence: bytes


@dataclass(frozen=True)
class Drawing:
    """Draws the parts of an explained picture on demand; used in one thread.

    Attributes:
        prediction: The answer.
        manifest: Of the checkpoint that answered.
        picture: Grey, as the network saw it.
        subjects: The faces to draw.
        spent_s: Returns the seconds since drawing began, and those since the request began.
    """

    prediction: Prediction
    manifest: Manifest
    picture: Picture
    subjects: Sequence[Subject]
    spent_s: Callable[[], tuple[float, float]]

    def figure(self) -> bytes:
        """Return all faces in one figure, a PNG."""
        kind = self.prediction.prior.kind
        title = f"{self.manifest.name}, version {self.manifest.version}, {kind} prior"
        return to_png(draw_figure(self.picture, self.subjects, title))

    def overlay(self) -> bytes:
        """Return the picture with boxes, labels and evidence, a PNG."""
        return to_png(draw_overlay(self.picture, self.subjects))

    def tiles(self, number: int) -> Tiles:
        """Return the pictures of one face, by its number in `subjects`."""
        tiles = draw_tiles(self.picture, self.subjects[number])
        return Tiles(*map(to_png, (tiles.straightened, tiles.attention, tiles.evidence)))

    def straightening(self, number: int) -> Straightening:
        """Return what the spatial transformer did to one face."""
        return describe(self.subjects[number].explanation.theta)


class Explainer:
    """Explains pictures; used on the event loop only."""

    def __init__(
        self,
        predictor: Predictor,
        pool: DecodePool,
        metrics: Metrics,
        max_pixels: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the explainer.

        Args:
            predictor: Classifies the faces.
            pool: Its threads draw.
            metrics: Records every drawing.
            max_pixels: Most pixels of a picture.
            clock: Seconds, in the time of the deadlines; thread-safe.
        """
        self._predictor, self._pool, self._metrics = predictor, pool, metrics
        self._max_pixels, self._clock = max_pixels, clock

    async def explain(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        render: Callable[[Drawing], Rendered],
        allowance: Allowance,
        prior: Prior | None = None,
    ) -> Rendered:
        """Explain one picture. Cancelling the task removes its faces from the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no use any more, in the clock's time.
            search: Which faces to find; at most `MAX_FACES`.
            render: Turns the drawing into the answer. It runs in a thread of the pool, because
                encoding megabytes of PNG would block the event loop.
            allowance: The decoding budget of the request.
            prior: To answer under; None is the default.

        Returns:
            The result of `render`.

        Raises:
            ServiceError: As `Predictor.predict` raises.
        """
        began = self._clock()
        search = replace(search, max_faces=min(search.max_faces, MAX_FACES))
        prediction = await self._predictor.predict(
            image, deadline, search, allowance, prior, explained=True
        )

        def draw() -> Rendered:
            return render(self._drawing(image, prediction, began))

        weigh = partial(self._predictor.weigh, image, _DETAILED, allowance)
        done = await self._pool.run(draw, deadline, weigh, allowance.client)
        self._metrics.stage["draw"].observe(done.spent_s)
        return done.result

    def _drawing(self, image: bytes | bytearray, prediction: Prediction, began: float) -> Drawing:
        drawing, manifest = self._clock(), self._predictor.manifest

        def spent_s() -> tuple[float, float]:
            now = self._clock()
            return now - drawing, now - began

        picture = decode(image, manifest.input_spec, self._max_pixels, _DETAILED)
        subjects = [_subject(recognised) for recognised in prediction.faces]
        return Drawing(prediction, manifest, picture, subjects, spent_s)


def _subject(recognised: RecognisedFace) -> Subject:
    face, expression = recognised.face, recognised.expression
    assert expression.explanation is not None  # `explain` requests it
    probabilities, explanation = expression.probabilities, expression.explanation
    return Subject(face.box, face.crop, probabilities, explanation, face.turn)
