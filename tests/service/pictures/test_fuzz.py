"""Fuzzing of `service.pictures.decode`: hostile bytes end in a picture or in an error of ours.

`FER_FUZZ_INPUTS` sets how many inputs the mutations try, and `FER_FUZZ_SEED` which: the default is
CI's, and for a night of it: `FER_FUZZ_INPUTS=5000000 FER_FUZZ_SEED=$RANDOM pytest -m slow -s
tests/service/pictures/test_fuzz.py --timeout 0`.
"""

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import ServiceError
from service.pictures.cost import Allowance
from service.pictures.decode import decode, prepare_pillow, weigh
from service.pictures.faces import whole_picture
from service.pictures.search import FINEST_SIDE, NEARLY, FaceSearch
from tests.service.hostile import multi_scan_jpeg, seeds, spoiled
from training.model.manifest import InputSpec

INPUTS = int(os.environ.get("FER_FUZZ_INPUTS", "240000"))
SEED = int(os.environ.get("FER_FUZZ_SEED", "0"))
EXAMPLES = max(100, INPUTS // 100)
MAX_PIXELS = 500_000
MAX_SECONDS = 5.0  # beside anything else that the host does
MAX_GROWTH_BYTES = 128 << 20
SPEC = InputSpec()
SEEDS = seeds()
ALL = [data for files in SEEDS.values() for data in files]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _prepared() -> None:
    prepare_pillow(MAX_PIXELS)


def outcome(data: bytes) -> str:
    """Decode as the service does; returns what a client would see."""
    began = time.monotonic()
    try:
        # With the copy in colour that faces are looked for in, though nobody looks.
        Allowance(len(data)).spend(weigh(data, SPEC, MAX_PIXELS, FaceSearch("always")))
        picture = decode(data, SPEC, MAX_PIXELS, FaceSearch("always"))
        assert picture.colour is not None
        assert picture.colour.mode == "RGB"
        assert max(picture.colour.size) <= NEARLY * FINEST_SIDE
        face = whole_picture(picture, SPEC)
    except ServiceError as error:
        result = error.code if error.status < 500 else "a failure of ours"
    else:
        assert face.pixels.shape == (SPEC.height, SPEC.width)
        assert face.pixels.dtype == np.uint8
        assert 0 < picture.width * picture.height <= MAX_PIXELS
        result = "face"
    assert result != "a failure of ours"
    assert time.monotonic() - began < MAX_SECONDS, f"slow: {data[:64]!r}, {len(data)} bytes"
    return result


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("kind", SEEDS)
def test_every_seed_is_sound(kind: str) -> None:
    assert [outcome(data) for data in SEEDS[kind]] == ["face"] * len(SEEDS[kind])


@pytest.mark.parametrize("kind", SEEDS)
def test_spoiled_files(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(f"{SEED}-{kind}")
    seen: Counter[str] = Counter()
    slowest, data = 0.0, b""
    before = descriptors = 0
    inputs = INPUTS // len(SEEDS)
    for number in range(inputs):
        if number == min(500, inputs // 4):  # what libraries keep for good they have by now
            before, descriptors = resident_bytes(), len(os.listdir("/proc/self/fd"))
        data = spoiled(chance.choice(SEEDS[kind]), ALL, chance)
        began = time.monotonic()
        seen[outcome(data)] += 1
        slowest = max(slowest, time.monotonic() - began)
    grown = resident_bytes() - before
    assert seen["face"] > 0  # else they were spoiled beyond what a decoder looks at
    assert seen["bad_image"] > 0
    assert grown < MAX_GROWTH_BYTES
    assert len(os.listdir("/proc/self/fd")) == descriptors
    out, err = capfd.readouterr()
    # libtiff says on standard error what it finds wrong, and has no public way to be told not to.
    assert kind == "TIFF" or out + err == "", "a library wrote to the log of the service"
    with capfd.disabled():
        line = f"{kind}: {dict(seen)}, slowest {1e3 * slowest:.0f} ms, {grown / 2**20:+.1f} MiB"
        sys.stdout.write(f"\n{line}\n")


FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


def many_scans(frame: int, chance: random.Random) -> bytes:
    """Return a JPEG of many scans, some with data, a few of them spoiled."""
    width, height = chance.choice([(700, 700), (8, 60_000), (161, 79), (16, 16)])
    scans = int(10 ** chance.uniform(0, 4))
    data = multi_scan_jpeg(frame, width, height, scans, chance.randint(1, 4), chance.randint(1, 4))
    if chance.random() < 0.5:
        piece = chance.choice([bytes(40), b"\x55" * 40, chance.randbytes(40), b"\x7f\xfe" * 9])
        at = data.index(b"\xff\xda")
        data = data[:at] + data[at:].replace(b"\xff\xda", piece + b"\xff\xda")
    return spoiled(data, ALL, chance) if chance.random() < 0.5 else data


@pytest.mark.parametrize("frame", FRAMES)
def test_jpegs_of_many_scans(frame: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Each takes at most what its request may, whatever the decoder makes of it."""
    chance = random.Random(f"{SEED}-{frame}")
    seen: Counter[str] = Counter()
    slowest = dearest = 0.0
    inputs = INPUTS // 100
    before = resident_bytes()
    for _ in range(inputs):
        data = many_scans(frame, chance)
        began = time.thread_time()
        seen[outcome(data)] += 1
        spent = time.thread_time() - began
        slowest = max(slowest, spent)
        dearest = max(dearest, spent / (0.6 + 1e-6 * len(data)))
    grown = resident_bytes() - before
    assert slowest < 1.0
    assert dearest < 1.0
    assert grown < MAX_GROWTH_BYTES
    with capfd.disabled():
        line = f"SOF{frame & 15}: {dict(seen)}, slowest {1e3 * slowest:.0f} ms of a core"
        sys.stdout.write(f"\n{line}, {grown / 2**20:+.1f} MiB\n")


heads = st.sampled_from([data[:size] for data in ALL for size in (4, 8, 16, 32, 64)])
pieces = st.lists(
    st.one_of(
        st.binary(max_size=64),
        st.sampled_from(ALL).flatmap(
            lambda data: st.integers(0, len(data) - 1).map(lambda at: data[at : at + 64])
        ),
        st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "little")),
        st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    ),
    max_size=24,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=SEED == 0,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(heads, pieces)
def test_files_put_together_from_pieces(head: bytes, rest: list[bytes]) -> None:
    outcome(head + b"".join(rest))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=SEED == 0,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(ALL), st.data())
def test_files_with_chosen_bytes_replaced(file: bytes, data: st.DataObject) -> None:
    spoilt = bytearray(file)
    places = st.integers(0, len(file) - 1)
    changes = data.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=12))
    for place, value in changes.items():
        spoilt[place] = value
    outcome(bytes(spoilt[: data.draw(st.integers(1, len(file)))]))
