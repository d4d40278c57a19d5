"""No request makes the service open a file, an address or a process: Python itself is asked."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service.config import detector_path
from tests.service.hostile import seeds
from tests.service.made_pictures import flat
from tests.service.serving import serving

pytestmark = pytest.mark.anyio

WATCHED = ("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "urllib.", "mmap.")
SECRET = "/etc/hostname"
PLACES = (
    SECRET,
    f"file://{SECRET}",
    "http://127.0.0.1:9/x",
    "\\\\host\\share",
    "../../x",
    "data:,x",
)


class Watch:
    """What the interpreter did while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event.startswith(WATCHED):
            self.seen.append(f"{event} {arguments!r:.200}")


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    watch = Watch()
    sys.addaudithook(watch)  # for good: there is no way to take one back
    yield watch
    watch.on = False


def bodies() -> Iterator[tuple[bytes, dict[str, str]]]:
    """Whatever might be taken for the name of something else."""
    for place in PLACES:
        name = place.encode()
        yield name, {"content-type": "image/png"}
        yield (
            b"<svg xmlns:x='http://www.w3.org/1999/xlink'><image x:href='" + name + b"'/></svg>",
            {},
        )
        yield b'<!DOCTYPE x [<!ENTITY e SYSTEM "' + name + b'">]><x>&e;</x>', {}
        yield (
            json.dumps({"image": place, "url": place}).encode(),
            {"content-type": "application/json"},
        )
        for disposition in (
            f'form-data; name="image"; filename="{place}"',
            f'form-data; name="{place}"',
        ):
            for content in (name, flat(130)):
                part = f"--b\r\ncontent-disposition: {disposition}\r\n\r\n".encode()
                yield (
                    part + content + b"\r\n--b--\r\n",
                    {"content-type": "multipart/form-data; boundary=b"},
                )
    for files in seeds().values():
        for data in files:
            yield data, {}


async def test_requests_open_nothing(watch: Watch) -> None:
    async with serving(detector=detector_path()) as (client, _):
        # What is imported or made the first time.
        for data in (b"x", *(data for files in seeds().values() for data in files)):
            await client.post("/predict", content=data)
            await client.post("/predict/batch", files=[("image", ("a", data))])
        watch.on = True
        statuses = set()
        for path in ("/predict", "/predict/batch"):
            for body, headers in bodies():
                for place, named in ((PLACES[0], {}), (PLACES[1], {"url": PLACES[1]})):
                    response = await client.post(
                        path,
                        content=body,
                        headers=headers | {"referer": place, "x-forwarded-host": place},
                        params=named,
                    )
                    statuses.add(response.status_code)
                    assert SECRET not in response.text
        for place in PLACES:
            statuses.add((await client.get(f"/{place}")).status_code)
        watch.on = False
    assert watch.seen == []
    assert {200, 400, 404, 415} <= statuses


def test_the_watch_sees_what_it_is_for(watch: Watch) -> None:
    watch.on = True
    with open(SECRET) as file:
        file.read()
    watch.on = False
    assert [line for line in watch.seen if line.startswith(f"open ('{SECRET}'")]
