"""The way of one explanation: a picture answered as `service.pipeline` does, then drawn.

    bytes ─▶ faces ─▶ probabilities and reasons ─▶ drawing ─▶ answer
             (thread)  (worker)                     (thread)

Not its duty: HTTP; what the network's reasons are (`service.engine.evidence`), what they look
like (`service.drawing`).
"""

import time
from base64 import b64encode
from collections.abc import Callable, Hashable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pydantic_core
from PIL import Image

from service.drawing.figure import draw_figure, draw_tiles
from service.drawing.frames import describe
from service.drawing.overlay import draw_overlay, to_png
from service.drawing.paint import Subject
from service.pictures.cost import Allowance
from service.pictures.decode import Picture, decode
from service.pictures.pool import DecodePool
from service.pictures.search import FaceSearch
from service.pipeline import Predictor, Recognised
from service.telemetry.metrics import Metrics
from training.model.manifest import Manifest

MAX_FACES = 16
"""Most faces of one picture that are explained, the largest first."""

# A picture is decoded once more to be drawn, since keeping it while its faces wait would take a
# megabyte a request: as if for a search, which leaves more detail than faces alone need.
_DETAILED = FaceSearch("always")


class Explainer:
    """Explains pictures; used on the event loop alone."""

    def __init__(
        self,
        predictor: Predictor,
        pool: DecodePool,
        metrics: Metrics,
        max_pixels: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            predictor: Answers pictures.
            pool: Draws.
            metrics: Told of every drawing.
            max_pixels: Most pixels of a picture.
            clock: Seconds, as deadlines count them; any thread may call it.
        """
        self._predictor = predictor
        self._pool = pool
        self._metrics = metrics
        self._max_pixels = max_pixels
        self._clock = clock

    async def explain(
        self,
        image: bytes | bytearray,
        deadline: float,
        search: FaceSearch,
        as_figure: bool,
        client: Hashable = None,
    ) -> bytes:
        """Explain one picture. Cancelling it takes its faces out of the queue.

        Args:
            image: The picture's bytes.
            deadline: When the answer is of no more use, in the clock's time.
            search: Which of its faces are wanted; no more than `MAX_FACES` are taken.
            as_figure: Whether one picture is wanted instead of JSON.
            client: Who asks: the decoders go to each in turn.

        Returns:
            A PNG, or the JSON that `service.http.schemas.Explanation` describes.

        Raises:
            ServiceError: Any kind that `Predictor.predict` raises.
        """
        began = self._clock()
        search = replace(search, max_faces=min(search.max_faces, MAX_FACES))
        allowance = Allowance(len(image), client)
        recognised = await self._predictor.recognise(image, deadline, search, True, allowance)
        draw = self._draw_figure if as_figure else self._draw_body
        work = partial(draw, image, recognised, began)
        weigh = partial(self._predictor.weigh, image, _DETAILED, allowance)
        done = await self._pool.run(work, deadline, weigh, client)
        self._metrics.stage["draw"].observe(done.spent_s)
        return done.result

    def _draw_figure(self, image: bytes | bytearray, recognised: Recognised, _: float) -> bytes:
        """Run in a thread of the pool."""
        manifest = self._predictor.manifest
        title = f"{manifest.name}, version {manifest.version}"
        subjects = _subjects(recognised, manifest)
        return to_png(draw_figure(self._decode(image), subjects, title))

    def _draw_body(self, image: bytes | bytearray, recognised: Recognised, began: float) -> bytes:
        """Run in a thread of the pool, up to the JSON: megabytes are not for the event loop."""
        drawing = self._clock()
        picture = self._decode(image)
        subjects = _subjects(recognised, self._predictor.manifest)
        body = recognised.body
        faces = [
            face | _drawn(picture, subject)
            for face, subject in zip(body["faces"], subjects, strict=True)
        ]
        overlay = _url(draw_overlay(picture, subjects))
        now = self._clock()
        timing = body["timing"] | {
            "draw_ms": round(1e3 * (now - drawing), 3),
            "total_ms": round(1e3 * (now - began), 3),
        }
        return pydantic_core.to_json(body | {"faces": faces, "timing": timing, "overlay": overlay})

    def _decode(self, image: bytes | bytearray) -> Picture:
        spec = self._predictor.manifest.input_spec
        return decode(image, spec, self._max_pixels, _DETAILED)


def _subjects(recognised: Recognised, manifest: Manifest) -> list[Subject]:
    subjects = []
    for face, inference in zip(recognised.faces, recognised.inferences, strict=True):
        assert inference.explanation is not None  # it was asked for
        values = inference.probabilities.tolist()
        probabilities = dict(zip(manifest.emotions, values, strict=True))
        subjects.append(Subject(face.box, face.crop, probabilities, inference.explanation))
    return subjects


def _drawn(picture: Picture, subject: Subject) -> dict[str, Any]:
    tiles = draw_tiles(picture, subject)
    straightening = asdict(describe(subject.explanation.theta))
    return {
        "straightening": {name: round(value, 4) for name, value in straightening.items()},
        "straightened": _url(tiles.straightened),
        "attention": _url(tiles.attention),
        "evidence": _url(tiles.evidence),
    }


def _url(image: Image.Image) -> str:
    return f"data:image/png;base64,{b64encode(to_png(image)).decode()}"
