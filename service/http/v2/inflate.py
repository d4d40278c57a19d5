"""Decompresses bodies with gzip or deflate, up to a limit."""

import zlib
from collections.abc import Callable

from service.errors import BadRequest, RequestTooLarge, UnsupportedType
from service.http.upload_memory import MemoryReservation
from service.pictures.pool import DecodePool

ENCODINGS = ("gzip", "deflate")
STEP_BYTES = 1 << 20
"""Most bytes that one step inflates: deflate can expand data a thousand times."""
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


async def inflate(
    body: bytearray,
    encoding: str,
    max_bytes: int,
    reservation: MemoryReservation,
    pool: DecodePool,
    deadline: float,
) -> bytearray:
    """Decompress a request's body by its Content-Encoding.

    Args:
        body: As received.
        encoding: The header's value.
        max_bytes: Most bytes of the result.
        reservation: Accounts for the memory.
        pool: Its threads decompress, one step at a time.
        deadline: When the result is of no use any more, in the time of the pool's clock.

    Returns:
        The same body if it is not compressed, else the decompressed one.

    Raises:
        UnsupportedType: Another encoding, or several.
        BadRequest: It is damaged or incomplete, or other data follows it.
        RequestTooLarge: The result is larger than allowed; the rest was not inflated.
        QueueFull: The memory for uploads or the pool is full.
        Overloaded, DeadlineExceeded: The pool could not do it in time.
    """
    encoding = encoding.strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ENCODINGS:
        raise UnsupportedType("Send the body as it is, or with gzip or deflate alone.")
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    whole, rest = bytearray(), bytes(body)
    while not inflater.eof:
        size = min(STEP_BYTES, max_bytes - len(whole) + 1)
        reservation.take(size)
        piece = (await pool.run(_step(inflater, rest, size), deadline)).result
        whole += piece
        rest = inflater.unconsumed_tail
        if len(whole) > max_bytes:
            raise RequestTooLarge(f"At most {max_bytes} bytes are inflated; send less.")
        if not piece and not inflater.eof:
            raise BadRequest("The compressed body ends too early.")
    if inflater.unused_data:
        raise BadRequest("Something follows the compressed body.")
    return whole


def _step(inflater: "zlib._Decompress", rest: bytes, size: int) -> Callable[[], bytes]:
    def work() -> bytes:
        try:
            return inflater.decompress(rest, size)
        except zlib.error:
            raise BadRequest("The compressed body is damaged.") from None

    return work
