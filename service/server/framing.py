"""Where a request's head and its body end, as RFC 9112 says it (sections 2.2, 3.2, 6 and 7.1).

    bytes ─▶ take_head ─▶ the head, for the parser
          ─▶ body_of ─▶ SizedBody or ChunkedBody ─▶ the body's content

A request that another party could read differently is refused. A trailer is never a header: the
head ends where it ends, and what follows a chunked body is dropped.
"""

import re
from collections.abc import Iterable

from service.errors import BadRequest, HeadersTooLarge, UnsupportedCoding

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
CHUNKS_A_TURN = 256
"""Chunks of one body that are read without a pause for other connections; 0.3 ms."""
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
    """Take a request's head, with the blank line that ends it, off what has arrived.

    Args:
        buffer: Begins with the head, of at least a byte; blank lines before it are dropped.

    Returns:
        The head; None if its end is not here yet.

    Raises:
        HeadersTooLarge: It has more than `MAX_HEAD_BYTES`.
        BadRequest: It cannot become a head, whatever follows.
    """
    if buffer.startswith((b"\r", b"\n")):
        buffer[:] = buffer.lstrip(_LINE_END) or _LINE_END
        if buffer == _LINE_END:  # it stays, and tells that a request has begun
            return None
    end = _end_of_lines(buffer)
    if not end:
        _check_beginning(buffer)
        return None
    head = bytes(buffer[:end])
    del buffer[:end]
    return head


def body_of(version: str, headers: Headers) -> "SizedBody | ChunkedBody":
    """Return how a request's body is to be read.

    Args:
        version: "1.1" or another.
        headers: The request's, names in lower case.

    Raises:
        BadRequest: Its version, its Host or its length is not one.
        UnsupportedCoding: It is encoded in more ways than in chunks.
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
        complete: All of it was taken.
        paused: There is more to take than was taken at once; never.
    """

    paused = False

    def __init__(self, size: int) -> None:
        """Expect `size` bytes."""
        self._left = size
        self.complete = not size

    def take(self, buffer: bytearray) -> bytes:
        """Take what is here of the body off the buffer, and return it."""
        piece = bytes(buffer) if len(buffer) <= self._left else bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        self.complete = not self._left
        return piece


class ChunkedBody:
    """A body in chunks, up to the end of its trailers.

    Attributes:
        complete: All of it was taken.
        paused: `CHUNKS_A_TURN` were taken, and there may be more: take again, a little later.
    """

    def __init__(self) -> None:
        """Expect a chunk's size."""
        self.complete = self.paused = False
        self._left = 0  # of the present chunk
        self._in_chunk = self._in_trailers = False

    def take(self, buffer: bytearray) -> bytes:
        """Take what is here of the body off the buffer, and return its content.

        Raises:
            BadRequest: It is not well-formed.
            HeadersTooLarge: More than `MAX_HEAD_BYTES` of trailers.
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
        """Add a chunk's data to the content; return where what follows it begins."""
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
    """Return the answer to more of them than are read."""
    return HeadersTooLarge(f"At most {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes are read.")


def _end_of_lines(buffer: bytearray) -> int:
    """Return where the blank line behind headers or trailers ends; 0 if it is not here yet."""
    end = buffer.find(_HEAD_END, 0, MAX_HEAD_BYTES) + len(_HEAD_END)
    if end >= len(_HEAD_END):
        return end
    if len(buffer) >= MAX_HEAD_BYTES:
        raise headers_too_large()
    return 0


def _check_beginning(buffer: bytearray) -> None:
    """Refuse at once what cannot become a head: its end may never come."""
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
