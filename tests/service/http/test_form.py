"""Tests of `service.http.form` and `plain_form`: the quick look and the parser agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest, ServiceError
from service.http.form import Form, FormLimits
from service.http.plain_form import parse_plain_form
from service.http.upload_memory import UploadMemory

BOUNDARY = b"----x"
LIMITS = FormLimits(max_image_bytes=40, max_request_bytes=10_000, max_images=2)
DISPOSITION = b'Content-Disposition: form-data; name="image"; filename="face.jpg"'
TYPE = b"\r\nContent-Type: image/jpeg"


def form_of(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts) + (
        b"--" + BOUNDARY + end
    )


def part(data: bytes, headers: bytes = DISPOSITION + TYPE) -> bytes:
    return headers + b"\r\n\r\n" + data


def outcome(body: bytes, step: int) -> object:
    """What a form gives that comes in pieces: its pictures, or the problem."""
    memory = UploadMemory(10_000)
    with memory.reservation() as reservation:
        form = Form(BOUNDARY, LIMITS, reservation)
        try:
            for start in range(0, len(body), step):
                form.write(body[start : start + step])
            images = form.finish()
        except ServiceError as error:
            return error.code, str(error)
        kept = [bytes(i) for i in images if isinstance(i, bytearray)]
        assert memory.held_bytes >= sum(map(len, kept))
        return [bytes(i) if isinstance(i, bytearray) else (i.code, str(i)) for i in images]


@pytest.mark.parametrize(
    "headers",
    [
        DISPOSITION + TYPE,
        DISPOSITION,
        b'content-disposition: form-data; name="image"',  # undici, without a file's name
        b'Content-Disposition: form-data; name="image"; filename="\xc3\xa4 (1); b.png"' + TYPE,
    ],
)
@pytest.mark.parametrize("end", [b"--", b"--\r\n"])
@pytest.mark.parametrize("data", [b"x", b"\r\n", b"\r\n--", b"\r\n----", b"--" + BOUNDARY])
def test_what_everybody_sends_needs_no_parser(headers: bytes, end: bytes, data: bytes) -> None:
    body = form_of(part(data, headers), end=end)
    assert bytes(parse_plain_form(body, BOUNDARY) or b"") == data
    assert outcome(body, len(body)) == outcome(body, 1) == [data]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form_of(),
        form_of(part(b"")),
        form_of(part(b"a"), part(b"b")),
        form_of(part(b"a"), part(b"b", b'Content-Disposition: form-data; name="other"')),
        form_of(part(b"a", b'Content-Disposition: form-data; name="other"')),
        form_of(part(b"a", b"Content-Disposition: form-data; name=image")),
        form_of(part(b"a", DISPOSITION.replace(b"image", b"IMAGE"))),  # another field's name
        form_of(part(b"a", b'Content-Disposition: form-data; name="image"; name="other"')),
        form_of(part(b"a", DISPOSITION + b"\r\n" + DISPOSITION)),
        form_of(part(b"a", TYPE.strip() + b"\r\n" + DISPOSITION)),
        form_of(part(b"a", DISPOSITION + b"\r\nContent-Length: 1")),
        form_of(part(b"a", DISPOSITION.replace(b"face", b'fa\\"ce'))),
        form_of(part(b"a", DISPOSITION.replace(b"face", b"f" * 600))),
        form_of(part(b"a", b"")),
        form_of(part(b"a"), end=b"--\r\nafter"),
        form_of(part(b"a"), end=b""),
        form_of(part(b"a"), end=b"-"),
        form_of(part(b"a"))[:-9],
        b"before\r\n" + form_of(part(b"a")),
        form_of(part(b"a")).replace(b"\r\n", b"\n"),
    ],
)
def test_every_other_form_is_left_to_the_parser(body: bytes) -> None:
    assert parse_plain_form(body, BOUNDARY) is None
    assert outcome(body, max(1, len(body))) == outcome(body, 1)


def test_one_that_is_too_large_is_refused_as_the_parser_does() -> None:
    body = form_of(part(b"x" * 41))
    assert parse_plain_form(body, BOUNDARY) is not None
    assert outcome(body, len(body)) == outcome(body, 1)
    assert "more than 40 bytes" in str(outcome(body, len(body)))


def test_what_follows_the_last_boundary_is_not_of_the_form() -> None:
    body = form_of(part(b"a"))
    with UploadMemory(100).reservation() as reservation:
        form = Form(BOUNDARY, LIMITS, reservation)
        form.write(body)
        form.write(body)
        assert form.finish() == [bytearray(b"a")]


@pytest.mark.parametrize("name", [b"image[]", b"image[0]", b"image[17]"])
def test_a_field_may_be_marked_as_a_list(name: bytes) -> None:
    body = form_of(part(b"a", DISPOSITION.replace(b'"image"', b'"%s"' % name)), part(b"b"))
    assert outcome(body, len(body)) == outcome(body, 1) == [b"a", b"b"]


@pytest.mark.parametrize("name", [b"images", b"image[x]", b"image[", b"image[12345]", b"[]"])
def test_other_names_are_other_fields(name: bytes) -> None:
    body = form_of(part(b"a", DISPOSITION.replace(b'"image"', b'"%s"' % name)))
    assert "no field named" in str(outcome(body, len(body)))


@pytest.mark.parametrize(
    "headers",
    [
        DISPOSITION + TYPE + b"\r\nContent-Length: 1\r\nContent-ID: <1>\r\nX-One: 1\r\nX-Two: 2",
        b'Content-Disposition: form-data; name="image"; filename="%s"; filename*=UTF-8\'\'%s'
        % ("\u9854\u5199\u771f".encode() * 100, b"%E9%A1%94" * 300),
    ],
)
def test_the_headers_of_a_part_may_be_many_and_long(headers: bytes) -> None:
    body = form_of(part(b"a", headers))
    assert outcome(body, len(body)) == outcome(body, 7) == [b"a"]


@pytest.mark.parametrize(
    "preamble", [b"\r\n", b"This is a message in MIME format.\r\n", b"--" + BOUNDARY[:-1] + b"\r\n"]
)
def test_what_precedes_the_first_boundary_is_not_of_the_form(preamble: bytes) -> None:
    body = preamble + form_of(part(b"a"))
    assert outcome(body, len(body)) == outcome(body, 1) == [b"a"]


@pytest.mark.parametrize("body", [b"x" * 9_000, b"x" * 9_000 + b"\r\n" + form_of(part(b"a"))])
def test_and_it_is_short(body: bytes) -> None:
    assert outcome(body, len(body)) == outcome(body, 1)
    assert "does not begin with the boundary" in str(outcome(body, len(body)))


def test_an_unfinished_form_is_refused() -> None:
    with UploadMemory(100).reservation() as reservation:
        form = Form(BOUNDARY, LIMITS, reservation)
        with pytest.raises(BadRequest, match="ends before"):
            form.finish()


DATA = st.binary(max_size=50) | st.sampled_from([b"\r\n--" + BOUNDARY, b"\r\n--", b"\r", b"--"])
HEADERS = st.sampled_from(
    [
        DISPOSITION,
        DISPOSITION + TYPE,
        TYPE.strip() + b"\r\n" + DISPOSITION,
        DISPOSITION.lower(),
        DISPOSITION.upper(),
        DISPOSITION.replace(b"image", b"Image"),
        DISPOSITION + b";",
        DISPOSITION.replace(b'"image"', b'"other"'),
        DISPOSITION.replace(b": ", b":"),
        DISPOSITION + b"\r\nX: y",
        DISPOSITION + b"\r\n",
        DISPOSITION + TYPE + TYPE,
    ]
)
PARTS = st.lists(st.builds(part, DATA, HEADERS), max_size=3)
ENDS = st.sampled_from([b"--", b"--\r\n", b"--\r\n\r\n", b"-- ", b"", b"\r\n", b"--x"])


@given(PARTS, ENDS, st.integers(1, 40), st.data())
def test_in_one_piece_or_in_many_a_form_is_the_same(
    parts: list[bytes], end: bytes, step: int, data: st.DataObject
) -> None:
    body = bytearray(form_of(*parts, end=end))
    for _ in range(data.draw(st.integers(0, 2))):  # and spoilt
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    whole = outcome(bytes(body), max(1, len(body)))
    assert whole == outcome(bytes(body), step)
