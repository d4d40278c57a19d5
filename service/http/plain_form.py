"""The form that nearly everybody sends, read in one look: a single part, the picture.

A parser walks through a form event by event, which costs as much as all else that is done with a
small picture on the event loop. Not its duty: every other form, which is left to that parser
(`service.http.form`), and whatever is wrong with one.
"""

import re

FIELD = "image"
"""The name of a part that holds a picture."""

# The part's headers, as browsers, curl, httpx and requests write them. Anything else, an escaped
# name among it, is for the parser to understand.
_HEADERS = re.compile(
    rb'(?i:content-disposition): form-data; name="'
    + FIELD.encode()
    + rb'"(?:; filename="[^"\\\r\n]*")?(?:\r\n(?i:content-type): [^\r\n]*)?'
)
_MAX_HEADER_BYTES = 512
_AFTER_THE_LAST = (b"--", b"--\r\n")


def read_plain(body: bytes, boundary: bytes) -> bytearray | None:
    """Return the picture of a plain form; None unless it is one, whole.

    Args:
        body: Anything; all of it that has come.
        boundary: What stands between the parts.
    """
    opening, closing = b"--" + boundary + b"\r\n", b"\r\n--" + boundary
    if not body.startswith(opening):
        return None
    begins = body.find(b"\r\n\r\n", len(opening), len(opening) + _MAX_HEADER_BYTES)
    if begins < 0 or not _HEADERS.fullmatch(body, len(opening), begins):
        return None
    ends = body.find(closing, begins + 4)
    # An empty one is for the parser: it knows what to say.
    if ends <= begins + 4 or body[ends + len(closing) :] not in _AFTER_THE_LAST:
        return None
    return bytearray(memoryview(body)[begins + 4 : ends])
