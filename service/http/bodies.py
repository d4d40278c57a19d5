"""Builds the JSON bodies of answers, as described by `service.http.schemas`."""

from base64 import b64encode
from dataclasses import asdict
from typing import Any

from service.drawing.explainer import Drawing
from service.errors import ServiceError
from service.http.problems import problem
from service.pictures.boxes import POINTS
from service.pictures.faces import Box, Face
from service.pictures.quality import Quality
from service.pipeline import Expression, Prediction, RecognisedFace
from training.model.manifest import Manifest

Body = dict[str, Any]


def prediction_body(prediction: Prediction, manifest: Manifest) -> Body:
    """Return the body for `schemas.Prediction`.

    Args:
        prediction: Of one picture.
        manifest: Of the checkpoint that answered.
    """
    timing = prediction.timing
    return {
        "faces": [_face(recognised) for recognised in prediction.faces],
        "faces_found": prediction.faces_found,
        "truncated": prediction.truncated,
        "image": {"width": prediction.width, "height": prediction.height},
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "prior": prediction.prior.text,
        },
        "timing": {
            "decode_ms": _ms(timing.decode_s),
            "queue_ms": _ms(timing.queue_s),
            "inference_ms": _ms(timing.inference_s),
            "total_ms": _ms(timing.total_s),
        },
    }


def result_body(result: Prediction | ServiceError, manifest: Manifest) -> Body:
    """Return one of the results for `schemas.BatchPrediction`."""
    if isinstance(result, ServiceError):
        return problem(result)
    return prediction_body(result, manifest)


def explanation_body(drawing: Drawing) -> Body:
    """Return the body for `schemas.Explanation`; this draws, so call it in a thread.

    Args:
        drawing: Of one picture.
    """
    body = prediction_body(drawing.prediction, drawing.manifest)
    drawn = [_drawn(drawing, number) for number in range(len(drawing.subjects))]
    faces = [face | pictures for face, pictures in zip(body["faces"], drawn, strict=True)]
    overlay = _url(drawing.overlay())
    draw_s, total_s = drawing.spent_s()
    timing = body["timing"] | {"draw_ms": _ms(draw_s), "total_ms": _ms(total_s)}
    return body | {"faces": faces, "timing": timing, "overlay": overlay}


def round_probability(probability: float) -> float:
    """Round a probability to six digits: further digits vary with the batch."""
    return round(probability, 6)


def _face(recognised: RecognisedFace) -> Body:
    face = recognised.face
    return {
        "box": _box(face.box),
        "detection": None if face.detection is None else round_probability(face.detection),
        "landmarks": _landmarks(face),
        "roll": face.roll,
        "quality": None if face.quality is None else _quality(face.quality),
    } | _expression(recognised.expression)


def _box(box: Box) -> Body:
    return {"x": box.x, "y": box.y, "width": box.width, "height": box.height}


def _landmarks(face: Face) -> Body | None:
    if not face.landmarks:
        return None
    return {name: {"x": x, "y": y} for name, (x, y) in zip(POINTS, face.landmarks, strict=True)}


def _quality(quality: Quality) -> Body:
    return {
        "size": quality.size,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "usable": quality.usable,
    }


def _expression(expression: Expression) -> Body:
    return {
        "emotion": expression.emotion,
        "confidence": round_probability(expression.confidence),
        "probabilities": {
            name: round_probability(p) for name, p in expression.probabilities.items()
        },
    }


def _drawn(drawing: Drawing, number: int) -> Body:
    tiles = drawing.tiles(number)
    straightening = asdict(drawing.straightening(number))
    return {
        "straightening": {name: round(value, 4) for name, value in straightening.items()},
        "straightened": _url(tiles.straightened),
        "attention": _url(tiles.attention),
        "evidence": _url(tiles.evidence),
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
