"""Tests of `service.http.v2.inflate`: what compressed bodies may cost."""

import gzip
import math
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from service.errors import BadRequest, QueueFull, RequestTooLarge, ServiceError, UnsupportedType
from service.http.upload_memory import UploadMemory
from service.http.v2.inflate import STEP_BYTES, inflate
from service.pictures.pool import DecodePool

pytestmark = pytest.mark.anyio

LARGE = 10 * STEP_BYTES


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    pool = DecodePool(1, 4)
    yield pool
    pool.close()


async def run(
    pool: DecodePool, body: bytes, encoding: str, most: int = LARGE, memory: int = 10 * LARGE
) -> bytearray:
    with UploadMemory(memory).reservation() as reservation:
        return await inflate(bytearray(body), encoding, most, reservation, pool, math.inf)


@pytest.mark.parametrize("size", [0, 1, 1000, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES, LARGE])
@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_what_was_compressed_comes_out(
    pool: DecodePool, encoding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    plain = bytes(range(251)) * (size // 251 + 1)
    assert await run(pool, compress(plain[:size]), encoding) == plain[:size]


async def test_what_is_not_compressed_stays_as_it_is(pool: DecodePool) -> None:
    assert await run(pool, b"plain", "identity") == b"plain"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", ""])
async def test_other_encodings_are_refused(pool: DecodePool, encoding: str) -> None:
    with pytest.raises(UnsupportedType, match="gzip or deflate"):
        await run(pool, b"x", encoding)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        gzip.compress(b"face")[:-1],
        gzip.compress(b"a") * 2,
        zlib.compress(b"a") + b"x",
    ],
)
async def test_damaged_bodies(pool: DecodePool, body: bytes) -> None:
    with pytest.raises(BadRequest, match="compressed body"):
        await run(pool, body, "gzip")


async def test_a_bomb_stops_at_the_limit(pool: DecodePool) -> None:
    bomb = gzip.compress(bytes(40 * STEP_BYTES), 1)
    tracemalloc.start()
    with pytest.raises(RequestTooLarge, match=f"At most {2 * STEP_BYTES} bytes are inflated"):
        await run(pool, bomb, "gzip", 2 * STEP_BYTES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * STEP_BYTES


async def test_exactly_the_limit_is_allowed(pool: DecodePool) -> None:
    assert len(await run(pool, gzip.compress(bytes(999)), "gzip", 999)) == 999
    with pytest.raises(RequestTooLarge):
        await run(pool, gzip.compress(bytes(1000)), "gzip", 999)


async def test_all_that_is_inflated_is_accounted_for(pool: DecodePool) -> None:
    with pytest.raises(QueueFull):
        await run(pool, gzip.compress(bytes(5 * STEP_BYTES)), "gzip", memory=3 * STEP_BYTES)


async def test_the_pools_refusal_is_the_requests(pool: DecodePool) -> None:
    with UploadMemory(LARGE).reservation() as reservation, pytest.raises(ServiceError) as caught:
        await inflate(bytearray(gzip.compress(b"a")), "gzip", LARGE, reservation, pool, -math.inf)
    assert caught.value.code == "deadline_exceeded"
