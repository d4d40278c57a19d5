"""From a request's body, as it comes off the network, to the pictures in it.

Every byte is counted as it arrives, and the first one too many ends the reading. Pictures stay
in memory: the usual form parsers spool to disk, where faces must never be.
Not its duty: looking inside the pictures, or time limits.
"""

from collections.abc import Callable, Mapping

from starlette.types import Receive

from service.errors import (
    BadRequest,
    ImageTooLarge,
    NoImage,
    RequestTooLarge,
    ServiceError,
    UnsupportedType,
)
from service.http.disconnect import ClientGone
from service.http.form import Form, FormLimits, Upload, find_boundary
from service.http.upload_memory import MemoryReservation

# What a form holds besides the picture: boundaries, headers, a few fields of no interest.
FORM_OVERHEAD_BYTES = 64 << 10


async def read_image(
    headers: Mapping[str, str],
    receive: Receive,
    max_image_bytes: int,
    reservation: MemoryReservation,
) -> bytearray:
    """Read the one picture of a request, from a form or as the raw body.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        max_image_bytes: Of the picture.
        reservation: Accounts for what is held.

    Returns:
        The picture's bytes.

    Raises:
        NoImage: No picture, or an empty one.
        BadRequest: A broken form.
        UnsupportedType: Neither a form nor a picture.
        ImageTooLarge: More bytes than allowed; the rest was not read.
        TooManyImages: More than one picture.
        QueueFull: Uploads hold all the memory that they may.
        ClientGone: The client left.
    """
    kind = _content_type(headers)
    if kind == "multipart/form-data":
        limits = FormLimits(max_image_bytes, max_image_bytes + FORM_OVERHEAD_BYTES, 1)
        (image,) = await _read_form(headers, receive, limits, reservation, ImageTooLarge)
        if isinstance(image, ServiceError):
            raise image
        return image
    if not is_picture(kind):
        raise _refuse_type(
            headers,
            "Send the picture as the form field 'image' (multipart/form-data), or as the body "
            "with its own content type, such as image/jpeg.",
        )
    image = await read_body(headers, receive, max_image_bytes, reservation, ImageTooLarge)
    if not image:
        raise _no_image()
    return image


async def read_images(
    headers: Mapping[str, str], receive: Receive, limits: FormLimits, reservation: MemoryReservation
) -> list[Upload]:
    """Read the several pictures of a form.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        limits: How much the form may bring.
        reservation: Accounts for what is held.

    Returns:
        For each field `image`, in order, its bytes, or why it alone was not kept: empty, or too
        large.

    Raises:
        NoImage: The form has no picture.
        BadRequest: A broken form.
        UnsupportedType: Not a form.
        RequestTooLarge: More bytes than allowed; the rest was not read.
        TooManyImages: More pictures than allowed; the rest was not read.
        QueueFull: Uploads hold all the memory that they may.
        ClientGone: The client left.
    """
    if _content_type(headers) != "multipart/form-data":
        raise _refuse_type(
            headers, "Send the pictures as form fields 'image' (multipart/form-data)."
        )
    return await _read_form(headers, receive, limits, reservation, RequestTooLarge)


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    max_bytes: int,
    reservation: MemoryReservation,
    too_large: Callable[[str], ServiceError] = RequestTooLarge,
) -> bytearray:
    """Read a whole body, whatever it is.

    Args:
        headers: The request's headers, names in lower case.
        receive: The request's ASGI channel; nothing may have been received yet.
        max_bytes: Most of them.
        reservation: Accounts for what is held.
        too_large: What to raise where there are more.

    Returns:
        The body; it may be empty.

    Raises:
        BadRequest: A Content-Length that is not a number.
        RequestTooLarge: More bytes than allowed, unless `too_large` is another; the rest was not
            read.
        QueueFull: Uploads hold all the memory that they may.
        ClientGone: The client left.
    """
    body = bytearray()

    def keep(chunk: bytes) -> None:
        reservation.take(len(chunk))
        body.extend(chunk)

    await _receive(headers, receive, max_bytes, too_large, keep)
    return body


def is_picture(kind: str) -> bool:
    """Tell whether a body of such a media type, in lower case, is taken for a picture."""
    return kind in ("", "application/octet-stream") or kind.startswith("image/")


def _no_image() -> NoImage:
    return NoImage("Send a picture as the form field 'image', or as the request's body.")


def _refuse_type(headers: Mapping[str, str], detail: str) -> ServiceError:
    # Without a body its type is the lesser mistake.
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
    """Pass a body's chunks on; raise before reading on where there are, or will be, too many."""
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
            raise ClientGone
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
