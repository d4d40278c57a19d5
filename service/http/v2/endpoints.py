"""The handlers of the protocol, which use the same predictor as the rest of the API."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from service.engine.prior import Prior
from service.http.handlers import RequestContext, get_service, handle, json_response
from service.http.query import choose_prior
from service.http.state import Service
from service.http.uploads import read_body
from service.http.v2.answers import Rows, respond
from service.http.v2.inflate import inflate
from service.http.v2.messages import MODEL
from service.http.v2.metadata import model_metadata, server_metadata
from service.http.v2.recognise import recognise
from service.http.v2.requests import InferLimits, InferRequest, find_json, read_request

MAX_FACES = 256
"""Most rows of `faces` in one request: more would delay all other clients for seconds."""


async def server(request: Request) -> Response:
    """Name the server, and the protocol's extensions that it has."""
    get_service(request)
    return json_response(server_metadata())


async def live(_: Request) -> Response:
    """Answer as long as the event loop runs."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """Answer as /health/ready does."""
    _check(request)
    return json_response({"ready": True})


async def model(request: Request) -> Response:
    """Name the tensors, and in `parameters` the emotions in the order of `probabilities`."""
    service = get_service(request)
    return json_response(model_metadata(service.predictor.priors, _limits(service)))


async def model_ready(request: Request) -> Response:
    """Answer as /health/ready does: the one model is the service."""
    _check(request)
    return json_response({"name": MODEL, "ready": True})


async def infer(request: Request) -> Response:
    """Send one input: `faces`, grey pixels, or `image`, whole pictures.

    The answer has a row a face. Of `image` that is every face found in every picture, picture by
    picture, and none is an answer too; `image_index` says which picture. One broken picture fails
    the request. Binary tensors follow the JSON, whose length Inference-Header-Content-Length says.
    """
    asked, rows, prior = await handle(request, _read, _infer)
    return respond(asked, rows, get_service(request).predictor.manifest, prior)


async def _read(context: RequestContext) -> bytearray:
    _, most = find_json(context.headers, context.service.settings.max_request_bytes)
    return await read_body(context.headers, context.request.receive, most, context.reservation)


async def _infer(context: RequestContext, body: bytearray) -> tuple[InferRequest, Rows, Prior]:
    service, deadline = context.service, context.deadline
    json_bytes, most = find_json(context.headers, service.settings.max_request_bytes)
    encoding = context.headers.get("content-encoding", "identity")
    body = await inflate(body, encoding, most, context.reservation, service.pool, deadline)
    limits = _limits(service)
    work = partial(read_request, body, json_bytes, limits)
    done = await service.pool.run(work, deadline, client=context.client)
    asked = done.result
    prior = choose_prior(asked.prior, service.predictor.priors)
    if asked.faces is not None:
        context.slot.found(len(asked.faces))
    allowance = context.allowance(sum(map(len, asked.images)))
    rows = await recognise(service.predictor, asked, prior, deadline, allowance)
    return asked, rows, prior


def _limits(service: Service) -> InferLimits:
    settings = service.settings
    return InferLimits(
        max_faces=min(MAX_FACES, settings.queue_size),
        max_images=settings.max_images,
        max_image_bytes=settings.max_image_bytes,
        spec=service.predictor.manifest.input_spec,
    )


def _check(request: Request) -> None:
    if (error := get_service(request).check()) is not None:
        raise error
