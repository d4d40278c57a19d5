"""Tests of `service.http.json_image`: pictures as base64 in JSON."""

import base64
import json

import pytest

from service.errors import BadRequest, ImageTooLarge, NoImage, ServiceError
from service.http.json_image import encoded_bytes, read_image_text, read_image_texts

PICTURE = bytes(range(256)) * 4 + b"\xfb\xef\xbe"  # has + and / in base64
ENCODED = base64.b64encode(PICTURE).decode()


def body(**fields: object) -> bytearray:
    return bytearray(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "text",
    [
        ENCODED,
        f"data:image/jpeg;base64,{ENCODED}",
        f"DATA:;BASE64,{ENCODED}",
        f"data:image/png;name=a b.png;base64,{ENCODED}",
        ENCODED.rstrip("="),
        base64.urlsafe_b64encode(PICTURE).decode(),
        base64.encodebytes(PICTURE).decode(),  # in lines
    ],
)
def test_a_picture_is_read_in_every_usual_form(text: str) -> None:
    assert read_image_text(body(image=text), 2000) == PICTURE
    assert read_image_texts(body(images=[text, ENCODED]), 2000) == [PICTURE, PICTURE]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (bytearray(b"{"), BadRequest, "not valid JSON"),
        (bytearray(b'{"image": "\xff"}'), BadRequest, "not valid JSON"),
        (bytearray(b"[" * 100_000), BadRequest, "not valid JSON"),
        (bytearray(b'"image"'), NoImage, 'send {"image": ...}'),
        (body(img=ENCODED), NoImage, "no field 'image'"),
        (body(image=ENCODED, model="x"), BadRequest, "unknown field 'model'"),
        (body(image=["x"]), BadRequest, "not a text"),
        (body(image=None), BadRequest, "not a text"),
        (body(image=""), NoImage, "empty"),
        (body(image="data:image/png;base64,"), NoImage, "empty"),
        (body(image="a picture!"), BadRequest, "not valid base64"),
        (body(image="data:image/png,abc"), BadRequest, "not valid base64"),
        (body(image="\u00e4" * 8), BadRequest, "not valid base64"),
        (body(image="A"), BadRequest, "not valid base64"),
        (body(image="https://example.org/face.jpg"), BadRequest, "not fetched"),
        (body(image="file:///etc/passwd"), BadRequest, "not fetched"),
        (body(image=base64.b64encode(b"x" * 2001).decode()), ImageTooLarge, "more than 2000"),
    ],
)
def test_what_is_wrong_is_said(content: bytearray, error: type[ServiceError], said: str) -> None:
    with pytest.raises(error, match=said):
        read_image_text(content, 2000)


@pytest.mark.parametrize(
    ("content", "said"),
    [(body(images=[]), "empty"), (body(images="x"), "list"), (body(images=[1]), "list")],
)
def test_a_list_is_a_list_of_texts(content: bytearray, said: str) -> None:
    with pytest.raises((BadRequest, NoImage), match=said):
        read_image_texts(content, 2000)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 10 << 20])
def test_the_largest_picture_fits(size: int) -> None:
    text = base64.b64encode(b"x" * size).decode()
    assert len(body(image=f"data:image/jpeg;base64,{text}")) <= encoded_bytes(size)
