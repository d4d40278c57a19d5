"""Reads the pictures from a request's body.

Bytes are counted as they arrive, and reading ends at the first byte above a limit. Pictures stay in
memory: common form parsers spool to disk, where faces must never be stored.
"""

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import Receive

from service.errors import (
    BadRequest,
    ImageTooLarge,
    NoImage,
    RequestTooLarge,
    ServiceError,
    TooManyImages,
    UnsupportedType,
)
from service.http.disconnect import ClientDisconnected
from service.http.form import Form, FormLimits, Upload, find_boundary
from service.http.json_image import encoded_bytes, read_image_text, read_image_texts
from service.http.upload_memory import MemoryReservation

# Of a form besides the picture: boundaries, headers, a few other fields.
FORM_OVERHEAD_BYTES = 64 << 10
# Beside a body of JSON there are its text and the pictures in it while it is read.
_JSON_COPIES = 2
# The last is what stores such as S3 give files of no known type.
_ANY_BYTES = frozenset({"", "application/octet-stream", "binary/octet-stream"})


async def read_image(
    headers: Mapping[str, str],
    receive: Receive,
    max_image_bytes: int,
    reservation: MemoryReservation,
) -> bytearray:
    """Read the picture of a request: from a form, from JSON, or as the raw body.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        max_image_bytes: Of the picture.
        reservation: Accounts for the memory.

    Returns:
        The picture's bytes.

    Raises:
        NoImage: There is no picture, or an empty one.
        BadRequest: The form or the JSON is malformed.
        UnsupportedType: The body is neither a form, JSON nor a picture.
        ImageTooLarge: It has more bytes than allowed; the rest was not read.
        TooManyImages: There are several pictures.
        QueueFull: The memory for uploads is full.
        ClientDisconnected: The client disconnected.
    """
    kind = _content_type(headers)
    if kind == "multipart/form-data":
        limits = FormLimits(max_image_bytes, max_image_bytes + FORM_OVERHEAD_BYTES, 1)
        (image,) = await _read_form(headers, receive, limits, reservation, ImageTooLarge)
        if isinstance(image, ServiceError):
            raise image
        return image
    if kind == "application/json":
        most = encoded_bytes(max_image_bytes)
        body = await read_body(headers, receive, most, reservation, ImageTooLarge)
        reservation.take(_JSON_COPIES * len(body))
        # In a thread: the text of a large picture takes milliseconds.
        return await asyncio.to_thread(read_image_text, body, max_image_bytes)
    if not is_picture(kind):
        raise _refuse_type(
            headers,
            "Send the picture as the form field 'image' (multipart/form-data), as the body with "
            "its own content type, such as image/jpeg, or as base64 in JSON.",
        )
    image = await read_body(headers, receive, max_image_bytes, reservation, ImageTooLarge)
    if not image:
        raise _no_image()
    return image


async def read_images(
    headers: Mapping[str, str], receive: Receive, limits: FormLimits, reservation: MemoryReservation
) -> list[Upload]:
    """Read the pictures of a form, or of JSON.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        limits: Of the form.
        reservation: Accounts for the memory.

    Returns:
        For each field `image`, in order, its bytes, or its error if it is empty or too large.

    Raises:
        NoImage: There is no picture.
        BadRequest: The form or the JSON is malformed.
        UnsupportedType: The body is neither a form nor JSON.
        RequestTooLarge: It has more bytes than allowed; the rest was not read.
        TooManyImages: It has more pictures than allowed; the rest was not read.
        QueueFull: The memory for uploads is full.
        ClientDisconnected: The client disconnected.
    """
    kind = _content_type(headers)
    if kind == "application/json":
        body = await read_body(headers, receive, limits.max_request_bytes, reservation)
        reservation.take(_JSON_COPIES * len(body))
        images = await asyncio.to_thread(read_image_texts, body, limits.max_image_bytes)
        if len(images) > limits.max_images:
            raise TooManyImages(f"At most {limits.max_images} images a request.")
        return list(images)
    if kind != "multipart/form-data":
        raise _refuse_type(
            headers,
            "Send the pictures as form fields 'image' (multipart/form-data), or as base64 in JSON.",
        )
    return await _read_form(headers, receive, limits, reservation, RequestTooLarge)


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    max_bytes: int,
    reservation: MemoryReservation,
    too_large: Callable[[str], ServiceError] = RequestTooLarge,
) -> bytearray:
    """Read a whole body of any type.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        max_bytes: Most bytes.
        reservation: Accounts for the memory.
        too_large: The error for a larger body.

    Returns:
        The body; it may be empty.

    Raises:
        BadRequest: The Content-Length is not a number.
        RequestTooLarge: It has more bytes than allowed (or the error `too_large`); the rest was
            not read.
        QueueFull: The memory for uploads is full.
        ClientDisconnected: The client disconnected.
    """
    body = bytearray()

    def keep(chunk: bytes) -> None:
        reservation.take(len(chunk))
        body.extend(chunk)

    await _receive(headers, receive, max_bytes, too_large, keep)
    return body


def is_picture(kind: str) -> bool:
    """Return whether a body of this media type, in lower case, is treated as a picture."""
    return kind in _ANY_BYTES or kind.startswith("image/")


def _no_image() -> NoImage:
    return NoImage("Send a picture as the form field 'image', or as the request's body.")


def _refuse_type(headers: Mapping[str, str], detail: str) -> ServiceError:
    # A missing body is the more useful error than its type.
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    return _no_image() if empty else UnsupportedType(detail)


def _content_type(headers: Mapping[str, str]) -> str:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedType("Compressed requests are not read; send the picture as it is.")
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _receive(
    headers: Mapping[str, str],
    receive: Receive,
    max_bytes: int,
    too_large: Callable[[str], ServiceError],
    keep: Callable[[bytes], None],
) -> None:
    """Pass a body's chunks to `keep`; raises as soon as the body is known to be too large."""
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise BadRequest("The Content-Length is not a number.")
    left = max_bytes
    if int(declared[:20]) > left:
        raise too_large(f"At most {max_bytes} bytes are read; send less.")
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            left -= len(chunk)
            if left < 0:
                raise too_large(f"At most {max_bytes} bytes are read; send less.")
            keep(chunk)


async def _read_form(
    headers: Mapping[str, str],
    receive: Receive,
    limits: FormLimits,
    reservation: MemoryReservation,
    too_large: Callable[[str], ServiceError],
) -> list[Upload]:
    form = Form(find_boundary(headers["content-type"]), limits, reservation)
    await _receive(headers, receive, limits.max_request_bytes, too_large, form.write)
    return form.finish()
