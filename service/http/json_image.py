"""Pictures inside JSON: base64 text, with or without a data URL's head."""

import base64
import binascii
import re

import pydantic_core

from service.errors import BadRequest, ImageTooLarge, NoImage

SINGLE, SEVERAL = "image", "images"
"""The names of the field with one picture, and of the one with a list of them."""

_HEAD = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n"


def encoded_bytes(image_bytes: int) -> int:
    """Return the most bytes of JSON that a picture of so many bytes takes."""
    return image_bytes // 3 * 4 + (64 << 10)


def read_image_text(body: bytearray, max_image_bytes: int) -> bytearray:
    """Return the picture in `{"image": "..."}`.

    Args:
        body: The whole body.
        max_image_bytes: Most bytes of the picture.

    Raises:
        NoImage: The field is missing, or empty.
        BadRequest: The JSON or the base64 is malformed, or there are other fields.
        ImageTooLarge: The picture has more bytes.
    """
    text = _read_field(body, SINGLE)
    if not isinstance(text, str):
        raise BadRequest(f"The field {SINGLE!r} is not a text; send the picture as base64.")
    return _decode(text, max_image_bytes)


def read_image_texts(body: bytearray, max_image_bytes: int) -> list[bytearray]:
    """Return the pictures in `{"images": ["...", "..."]}`, in order.

    Args:
        body: The whole body.
        max_image_bytes: Most bytes of each picture.

    Raises:
        NoImage, BadRequest, ImageTooLarge: As from `read_image_text`.
    """
    texts = _read_field(body, SEVERAL)
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise BadRequest(f"The field {SEVERAL!r} is not a list of texts; send base64.")
    if not texts:
        raise NoImage(f"The list {SEVERAL!r} is empty.")
    return [_decode(text, max_image_bytes) for text in texts]


def _read_field(body: bytearray, name: str) -> object:
    try:
        fields = pydantic_core.from_json(body)
    except ValueError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(fields, dict) or name not in fields:
        raise NoImage(f'The JSON has no field {name!r}; send {{"{name}": ...}} with base64.')
    if others := sorted(fields.keys() - {name}):
        raise BadRequest(f"The JSON has an unknown field {others[0][:40]!r}; expected {name!r}.")
    return fields[name]


def _decode(text: str, max_image_bytes: int) -> bytearray:
    if _URL.match(text):
        raise BadRequest("Addresses are not fetched; send the picture itself as base64.")
    head = _HEAD.match(text)
    encoded = text[head.end() if head else 0 :].encode("ascii", "replace")
    encoded = encoded.translate(_URL_SAFE, delete=_SPACES).rstrip(b"=")
    if len(encoded) // 4 * 3 > max_image_bytes:
        raise ImageTooLarge(f"The image has more than {max_image_bytes} bytes; send a smaller one.")
    try:
        image = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise BadRequest("The picture is not valid base64.") from None
    if not image:
        raise NoImage("The image is empty; send the bytes of a picture.")
    return bytearray(image)
