"""Classifies the inputs of a request into the rows of its answer."""

import asyncio

import numpy as np
import numpy.typing as npt

from service.engine.prior import Prior
from service.errors import ServiceError
from service.http.bodies import round_probability
from service.http.v2.answers import Row, Rows
from service.http.v2.requests import InferRequest
from service.pictures.cost import Allowance
from service.pictures.faces import Box
from service.pipeline import Expression, Prediction, Predictor


async def recognise(
    predictor: Predictor,
    request: InferRequest,
    prior: Prior,
    deadline: float,
    allowance: Allowance,
) -> Rows:
    """Return one row per face. Cancelling the task removes the faces from the queue.

    Args:
        predictor: Classifies the faces.
        request: The request.
        prior: To answer under.
        deadline: When the answer is of no use any more, in the time of the predictor's clock.
        allowance: The decoding budget of the request.

    Raises:
        ServiceError: As the predictor raises for any of the pictures: by the protocol, the whole
            request fails.
    """
    if request.faces is not None:
        return await _classify(predictor, request.faces, prior, deadline)
    answers = await _predict(predictor, request, prior, deadline, allowance)
    rows = [
        _row(index, recognised.expression, recognised.face.box)
        for index, answer in enumerate(answers)
        for recognised in answer.faces
    ]
    found = sum(answer.faces_found for answer in answers)
    return Rows(rows, found, any(answer.truncated for answer in answers))


async def _classify(
    predictor: Predictor, faces: npt.NDArray[np.uint8], prior: Prior, deadline: float
) -> Rows:
    _, height, width = faces.shape
    answers = await predictor.classify(faces, deadline, prior)
    box = Box(0, 0, width, height)
    return Rows([_row(index, expression, box) for index, expression in enumerate(answers)])


async def _predict(
    predictor: Predictor,
    request: InferRequest,
    prior: Prior,
    deadline: float,
    allowance: Allowance,
) -> list[Prediction]:
    """Predict all pictures concurrently, so that their faces share batches; one error ends all."""

    async def one(index: int, image: bytes) -> Prediction:
        try:
            return await predictor.predict(image, deadline, request.search, allowance, prior)
        except ServiceError as error:
            detail = f"Of 'image' element {index}: {error.detail}"
            raise type(error)(detail, error.retry_after_s) from None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in enumerate(request.images)]
    except* ServiceError as errors:
        first = _first(errors)
    else:
        return [task.result() for task in tasks]
    raise first


def _first(errors: BaseExceptionGroup[ServiceError]) -> ServiceError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ServiceError)  # the group holds nothing else
    return error


def _row(index: int, expression: Expression, box: Box) -> Row:
    probabilities = tuple(round_probability(p) for p in expression.probabilities.values())
    return Row(index, (box.x, box.y, box.width, box.height), expression.emotion, probabilities)
