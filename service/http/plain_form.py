"""Fast path for the most common form: a single part, the picture.

The general parser (`service.http.form`) handles a form event by event, which takes as long as all
other work on the event loop for a small picture. It handles all other forms, and malformed ones.
"""

import re

FIELD = "image"
"""The name of the form field with a picture."""

# The part's headers, as browsers, curl, httpx and requests write them. All others, such as escaped
# file names, are left to the general parser.
_HEADERS = re.compile(
    rb'(?i:content-disposition): form-data; name="'
    + FIELD.encode()
    + rb'"(?:; filename="[^"\\\r\n]*")?(?:\r\n(?i:content-type): [^\r\n]*)?'
)
_MAX_HEADER_BYTES = 512
_AFTER_THE_LAST = (b"--", b"--\r\n")


def parse_plain_form(body: bytes, boundary: bytes) -> bytearray | None:
    """Return the picture of a complete plain form; None for any other data.

    Args:
        body: The bytes received so far.
        boundary: Separates the parts.
    """
    opening, closing = b"--" + boundary + b"\r\n", b"\r\n--" + boundary
    if not body.startswith(opening):
        return None
    begins = body.find(b"\r\n\r\n", len(opening), len(opening) + _MAX_HEADER_BYTES)
    if begins < 0 or not _HEADERS.fullmatch(body, len(opening), begins):
        return None
    ends = body.find(closing, begins + 4)
    # An empty picture is left to the parser, which reports the error.
    if ends <= begins + 4 or body[ends + len(closing) :] not in _AFTER_THE_LAST:
        return None
    return bytearray(memoryview(body)[begins + 4 : ends])
