"""Collects the pictures of a multipart form while its bytes arrive."""

import re
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest, ImageTooLarge, NoImage, ServiceError, TooManyImages
from service.http.plain_form import parse_plain_form
from service.http.upload_memory import MemoryReservation

Upload = bytearray | ServiceError
"""The bytes of one picture, or its error."""

# Limits of a part's headers: real clients send two to five; the longest contains a file name,
# twice where it is not ASCII.
MAX_PART_HEADERS = 16
MAX_PART_HEADER_BYTES = 8 << 10
MAX_OTHER_PARTS = 8
# What may stand before the first boundary and is ignored (RFC 2046, 5.1.1).
MAX_PREAMBLE_BYTES = 8 << 10
# Libraries of PHP, Ruby and JavaScript number the files of one field, or mark it as a list.
_FIELDS = re.compile(rb"image(\[[0-9]{0,4}\])?")


@dataclass(frozen=True)
class FormLimits:
    """The limits of one form.

    Attributes:
        max_image_bytes: Most bytes of one picture.
        max_request_bytes: Most bytes of the whole body.
        max_images: Most pictures.
    """

    max_image_bytes: int
    max_request_bytes: int
    max_images: int


def find_boundary(content_type: str) -> bytes:
    """Return the boundary in a form's Content-Type.

    Raises:
        BadRequest: It is missing, or not valid by RFC 2046.
    """
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    except UnicodeError:
        boundary = b""
    if not 1 <= len(boundary) <= 70:
        raise BadRequest("The form has no boundary of 1 to 70 characters in its Content-Type.")
    return boundary


class Form:
    """Collects the pictures of a form from the events of an incremental parser.

    After a method has raised an error, the form cannot be used any more.
    """

    def __init__(self, boundary: bytes, limits: FormLimits, reservation: MemoryReservation) -> None:
        """Create an empty form.

        Args:
            boundary: Separates its parts.
            limits: Of the form.
            reservation: Accounts for the memory.
        """
        self._limits = limits
        self._reservation = reservation
        self._images: list[Upload] = []
        self._others = 0
        self._name = self._value = b""
        self._disposition = b""
        self._current: bytearray | None = None
        self._complete = False
        self._boundary = boundary
        self._preamble = bytearray()
        self._parser: MultipartParser | None = None  # created when needed

    def write(self, chunk: bytes) -> None:
        """Parse the next bytes.

        Raises:
            BadRequest: They are malformed, or have too many other fields.
            ImageTooLarge: The only allowed picture is too large.
            TooManyImages: There are more pictures than allowed.
            QueueFull: The memory for uploads is full.
        """
        if self._complete:
            return  # data after the last boundary is ignored
        if self._parser is None:
            if not self._preamble and self._take_plain(chunk):
                return
            rest = self._skip_preamble(chunk)
            if rest is None:
                return
            chunk, self._parser = rest, self._begin_parsing()
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise BadRequest("The form is malformed; send multipart/form-data.") from None

    def finish(self) -> list[Upload]:
        """Return the pictures, in order, after the last bytes.

        Raises:
            BadRequest: The form is incomplete.
            NoImage: It has no field `image`.
        """
        if not self._complete:
            raise BadRequest("The form ends before its closing boundary.")
        if not self._images:
            raise NoImage("The form has no field named 'image'.")
        return self._images

    def _take_plain(self, chunk: bytes) -> bool:
        """Handle a complete plain form without the parser; returns whether it was one."""
        image = parse_plain_form(chunk, self._boundary)
        if image is None or len(image) > self._limits.max_image_bytes:
            return False
        self._reservation.take(len(image))
        self._images.append(image)
        self._complete = True
        return True

    def _skip_preamble(self, chunk: bytes) -> bytes | None:
        """Return what has arrived from the first boundary on; None before it is there."""
        self._preamble += chunk
        opening = b"--" + self._boundary
        if self._preamble.startswith(opening):
            return bytes(self._preamble)
        begins = self._preamble.find(b"\r\n" + opening)
        if begins > MAX_PREAMBLE_BYTES or (begins < 0 and len(self._preamble) > _most(opening)):
            raise BadRequest("The form does not begin with the boundary of its Content-Type.")
        return bytes(self._preamble[begins + 2 :]) if begins >= 0 else None

    def _begin_parsing(self) -> MultipartParser:
        return MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition.decode("latin-1"))[1]
        if not _FIELDS.fullmatch(options.get(b"name", b"")):
            self._others += 1
            if self._others > MAX_OTHER_PARTS:
                raise BadRequest("The form has too many fields besides 'image'.")
            return
        if len(self._images) == self._limits.max_images:
            raise _too_many(self._limits.max_images)
        self._current = bytearray()
        self._images.append(self._current)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is None:
            return
        if len(self._current) + end - start > self._limits.max_image_bytes:
            self._skip_large()
            return
        self._reservation.take(end - start)
        self._current += memoryview(data)[start:end]

    def _skip_large(self) -> None:
        limit = self._limits.max_image_bytes
        error = ImageTooLarge(f"The image has more than {limit} bytes; send a smaller one.")
        if self._limits.max_images == 1:
            raise error
        self._images[-1] = error
        self._current = None  # skip the rest of this picture only

    def _on_part_end(self) -> None:
        if self._current is not None and not self._current:
            self._images[-1] = NoImage("The image is empty; send the bytes of a picture.")
        self._current = None

    def _on_end(self) -> None:
        self._complete = True


def _most(opening: bytes) -> int:
    return MAX_PREAMBLE_BYTES + len(opening) + 2


def _too_many(limit: int) -> TooManyImages:
    if limit == 1:
        return TooManyImages("One image a request; send several to /predict/batch.")
    return TooManyImages(f"At most {limit} images a request; send the rest in another one.")
