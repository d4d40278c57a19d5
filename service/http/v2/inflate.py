"""Compressed bodies: gzip and deflate, never more of them than fits.

Not its duty: receiving the body, or what is in it.
"""

import zlib
from collections.abc import Callable

from service.errors import BadRequest, RequestTooLarge, UnsupportedType
from service.http.upload_memory import MemoryReservation
from service.pictures.pool import DecodePool

ENCODINGS = ("gzip", "deflate")
STEP_BYTES = 1 << 20
"""What one piece of work inflates at most: deflate makes a thousand bytes of one."""
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


async def inflate(
    body: bytearray,
    encoding: str,
    max_bytes: int,
    reservation: MemoryReservation,
    pool: DecodePool,
    deadline: float,
) -> bytearray:
    """Return what a request's body says, as its Content-Encoding has it.

    Args:
        body: As it was received.
        encoding: The header's value.
        max_bytes: Most that it may say.
        reservation: Accounts for what is held.
        pool: Its threads do the work, a step at a time.
        deadline: When the result is of no more use, in the pool's clock's time.

    Returns:
        The same body where it is not compressed, else what was inflated.

    Raises:
        UnsupportedType: Another encoding, or several.
        BadRequest: It is damaged or incomplete, or something follows it.
        RequestTooLarge: It says more than allowed; the rest was not inflated.
        QueueFull: Uploads hold all the memory that they may, or the pool is full.
        Overloaded, DeadlineExceeded: The pool had no time for it.
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
