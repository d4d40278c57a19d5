"""Finds the end of a request's head and body, after RFC 9112 (sections 2.2, 3.2, 6 and 7.1).

    bytes ─▶ take_head ─▶ the head, for the parser
          ─▶ body_of ─▶ SizedBody or ChunkedBody ─▶ the body's content

A request that a proxy could parse differently is refused (request smuggling). Trailers after a
chunked body are discarded, so that they never count as headers.
"""

import re
from collections.abc import Iterable

from service.errors import BadRequest, HeadersTooLarge, UnsupportedCoding

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
CHUNKS_A_TURN = 256
"""Chunks of one body that are parsed in one iteration of the event loop; takes 0.3 ms."""
_MAX_SIZE_LINE_BYTES = 1 << 10
_MAX_LENGTH_DIGITS = 15

_LINE_END, _HEAD_END = b"\r\n", b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"[A-Z-]+ [^\r\n]+ HTTP/1\.[01]")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,%d})(?:;%s(?:=(?:%s|\"[\t !#-\[\]-~]*\"))?)*\r\n"
    % (_MAX_LENGTH_DIGITS, _TOKEN, _TOKEN)
)
_TRAILERS = re.compile(rb"(?:%s:[\t -~\x80-\xff]*\r\n)*\r\n" % _TOKEN)

Headers = Iterable[tuple[bytes, bytes]]


def take_head(buffer: bytearray) -> bytes | None:
    """Remove a request's head, with the blank line that ends it, from the buffer.

    Args:
        buffer: Received bytes, at least one. Blank lines before the head are discarded.

    Returns:
        The head; None if its end has not been received yet.

    Raises:
        HeadersTooLarge: The head has more than `MAX_HEAD_BYTES`.
        BadRequest: The bytes cannot be the beginning of a head.
    """
    if buffer.startswith((b"\r", b"\n")):
        buffer[:] = buffer.lstrip(_LINE_END) or _LINE_END
        if buffer == _LINE_END:  # not discarded: the timer of a begun request continues
            return None
    end = _end_of_lines(buffer)
    if not end:
        _check_beginning(buffer)
        return None
    head = bytes(buffer[:end])
    del buffer[:end]
    return head


def body_of(version: str, headers: Headers) -> "SizedBody | ChunkedBody":
    """Return the parser of a request's body.

    Args:
        version: Of HTTP, e.g. "1.1".
        headers: The request's, names in lower case.

    Raises:
        BadRequest: The version, the Host or the length is invalid.
        UnsupportedCoding: The body has another transfer coding besides chunked.
    """
    hosts, lengths, codings = [], [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if version not in ("1.0", "1.1"):
        raise BadRequest("The request is not HTTP/1.1.")
    _check_host(version, hosts)
    if not codings:
        return SizedBody(_length(lengths))
    if lengths or version == "1.0":
        raise BadRequest("Send either a Content-Length or, by HTTP/1.1, a Transfer-Encoding.")
    return _chunked(codings)


class SizedBody:
    """A body of known length.

    Attributes:
        complete: The whole body was taken.
        paused: Always False; see `ChunkedBody`.
    """

    paused = False

    def __init__(self, size: int) -> None:
        """Expect `size` bytes."""
        self._left = size
        self.complete = not size

    def take(self, buffer: bytearray) -> bytes:
        """Remove the received part of the body from the buffer, and return it."""
        piece = bytes(buffer) if len(buffer) <= self._left else bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        self.complete = not self._left
        return piece


class ChunkedBody:
    """A chunked body, with its trailers.

    Attributes:
        complete: The whole body and its trailers were taken.
        paused: `CHUNKS_A_TURN` were taken and the buffer may hold more of them. Call `take` again
            in the next iteration of the event loop.
    """

    def __init__(self) -> None:
        """Expect a chunk's size."""
        self.complete = self.paused = False
        self._left = 0  # bytes of the current chunk that are still to come
        self._in_chunk = self._in_trailers = False

    def take(self, buffer: bytearray) -> bytes:
        """Remove the received part of the body from the buffer, and return its content.

        Raises:
            BadRequest: The body is malformed.
            HeadersTooLarge: The trailers have more than `MAX_HEAD_BYTES`.
        """
        content, at = bytearray(), 0
        for _ in range(CHUNKS_A_TURN):
            if self._in_chunk:
                at = self._take_data(buffer, at, content)
            if self._in_chunk or self._in_trailers or not (line := self._size_line(buffer, at)):
                self.paused = False
                break
            at = line.end()
            self._left = int(line[1], 16)
            self._in_chunk, self._in_trailers = self._left > 0, self._left == 0
        else:
            self.paused = True
        del buffer[:at]
        if self._in_trailers:
            self._skip_trailers(buffer)
        return bytes(content)

    def _take_data(self, buffer: bytearray, at: int, content: bytearray) -> int:
        """Append a chunk's data to the content; returns the index after it."""
        piece = buffer[at : at + self._left]
        content += piece
        self._left -= len(piece)
        at += len(piece)
        if not self._left and len(buffer) >= at + 2:
            if not buffer.startswith(_LINE_END, at):
                raise BadRequest("A chunk of the body is longer than its size.")
            self._in_chunk = False
            at += 2
        return at

    @staticmethod
    def _size_line(buffer: bytearray, at: int) -> re.Match[bytes] | None:
        line = _SIZE_LINE.match(buffer, at, at + _MAX_SIZE_LINE_BYTES)
        if line is None:
            whole = buffer.find(b"\n", at) >= 0 or len(buffer) - at >= _MAX_SIZE_LINE_BYTES
            if whole:
                raise BadRequest("The size of a chunk of the body is not one.")
        return line

    def _skip_trailers(self, buffer: bytearray) -> None:
        end = 2 if buffer.startswith(_LINE_END) else _end_of_lines(buffer)
        if end:
            if not _TRAILERS.fullmatch(buffer, 0, end):
                raise BadRequest("The trailers of the body are malformed.")
            del buffer[:end]
            self.complete = True


def headers_too_large() -> HeadersTooLarge:
    """Return the error for too many or too large headers."""
    return HeadersTooLarge(f"At most {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes are read.")


def _end_of_lines(buffer: bytearray) -> int:
    """Return the index after the blank line that ends headers or trailers; 0 without one."""
    end = buffer.find(_HEAD_END, 0, MAX_HEAD_BYTES) + len(_HEAD_END)
    if end >= len(_HEAD_END):
        return end
    if len(buffer) >= MAX_HEAD_BYTES:
        raise headers_too_large()
    return 0


def _check_beginning(buffer: bytearray) -> None:
    """Refuse bytes that cannot be the beginning of a head, without waiting for its end."""
    line, ended, _ = buffer.partition(_LINE_END)
    plausible = _REQUEST_LINE.fullmatch(line) if ended else buffer[:1].isupper()
    if not plausible or buffer.count(b"\n") > buffer.count(_LINE_END):
        raise BadRequest("The request is not valid HTTP/1.1.")


def _check_host(version: str, hosts: list[bytes]) -> None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest("Send one Host header.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("The Host header is not valid.")


def _length(lengths: list[bytes]) -> int:
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise BadRequest("The Content-Length is not a number.")
    return int(lengths[0])


def _chunked(codings: list[bytes]) -> ChunkedBody:
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    if names.count(b"chunked") != 1 or names[-1] != b"chunked":
        raise BadRequest("The last Transfer-Encoding, and it alone, must be chunked.")
    if len(names) > 1:
        raise UnsupportedCoding("Of transfer codings only chunked is read.")
    return ChunkedBody()
