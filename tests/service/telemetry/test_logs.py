"""Tests of `service.telemetry.logs` and `request_id`: lines that nobody can forge."""

import asyncio
import json
import logging
import os
import subprocess
import sys

import pytest

from service.telemetry import request_id
from service.telemetry.logs import DescriptorHandler, JsonFormatter, TextFormatter
from tests.service.made_pictures import flat
from tests.service.serving import BrokenEngine, serving

pytestmark = pytest.mark.anyio


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("service.x", logging.WARNING, "x.py", 1, message, args, info)


async def test_json_has_every_field_that_there_is() -> None:
    line = JsonFormatter().format(record("%d of %s", 3, "a"))
    fields = json.loads(line)
    assert fields.keys() == {"time", "level", "logger", "message"}
    assert (fields["level"], fields["logger"]) == ("warning", "service.x")
    assert fields["message"] == "3 of a"
    request_id.begin(b"abc")
    line = JsonFormatter(process="worker-2").format(record("x", error=ValueError("why")))
    fields = json.loads(line)
    assert (fields["request_id"], fields["process"]) == ("abc", "worker-2")
    assert fields["exception"] == "ValueError: why"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("0")])
@pytest.mark.parametrize("evil", ["a\nb", "\x1b[2Jx", "\u2028x", "\r\n", "\x00", "\x85"])
def test_a_message_stays_in_its_line(formatter: logging.Formatter, evil: str) -> None:
    line = formatter.format(record("said %s", evil))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_a_traceback_cannot_look_like_a_line() -> None:
    error = ValueError("x\n2026-01-01T00:00:00.000+00:00 INFO service: all is well\x1b[2J")
    first, *others = TextFormatter().format(record("failed", error=error)).split("\n")
    assert "failed" in first
    assert others
    assert all(row.startswith("    ") and row.isprintable() for row in others)


def test_text_names_process_and_request() -> None:
    line = TextFormatter(process="worker-1").format(record("x"))
    assert line.endswith("WARNING worker-1 service.x: x")


@pytest.mark.parametrize("name", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "A.b_c-1", "x" * 64])
async def test_a_sane_name_is_kept(name: str) -> None:
    async with serving() as (client, _):
        response = await client.get("/nothing", headers={"x-request-id": name})
        assert response.headers["x-request-id"] == name
        assert response.json()["instance"] == f"urn:attention-fer:request:{name}"


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "-x", 'a"b', "a b", "ä", "a\tb", "{}", "a;b"])
async def test_another_one_is_replaced(name: str) -> None:
    async with serving() as (client, _):
        headers = {b"x-request-id": name.encode("latin-1")}
        first = await client.get("/health/live", headers=headers)
        second = await client.get("/health/live")
        for response in (first, second):
            assert len(response.headers["x-request-id"]) == 16
            assert response.headers["x-request-id"].isalnum()
        assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_request_is_told_from_its_neighbours_in_every_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Keep()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("service.http.request_metrics")
    caplog.set_level(logging.DEBUG, logger="service.http.request_metrics")
    logger.addHandler(handler)
    names = [f"request-{number}" for number in range(20)]
    try:
        async with serving(BrokenEngine()) as (client, _):
            await asyncio.gather(
                *(
                    client.post(
                        "/predict",
                        content=flat(0 if number % 5 == 0 else 130),
                        headers={"x-request-id": name},
                    )
                    for number, name in enumerate(names)
                )
            )
    finally:
        logger.removeHandler(handler)
    seen = {fields["request_id"]: fields for fields in map(json.loads, lines)}
    assert seen.keys() == set(names)
    levels = {name: fields["level"] for name, fields in seen.items()}
    for number, name in enumerate(names):
        assert levels[name] == ("warning" if number % 5 == 0 else "debug")
        assert "/predict" in seen[name]["message"]


async def test_problems_of_a_batch_name_the_request_too() -> None:
    async with serving() as (client, _):
        files = [("image", ("a", b"no picture")), ("image", ("b", flat(130)))]
        response = await client.post("/predict/batch", files=files, headers={"x-request-id": "b1"})
        assert response.json()["results"][0]["instance"] == "urn:attention-fer:request:b1"


def test_a_full_disk_is_nobodys_failure() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        handler = DescriptorHandler(descriptor)
        handler.setFormatter(TextFormatter())
        handler.handle(record("x"))
    finally:
        os.close(descriptor)
    handler.handle(record("x"))  # as after a reader is gone


def test_a_line_is_written_whole() -> None:
    receiver, sender = os.pipe()
    handler = DescriptorHandler(sender)
    handler.setFormatter(JsonFormatter())
    handler.handle(record("x\ny"))
    os.close(sender)
    with open(receiver, "rb") as pipe:
        (line,) = pipe.read().splitlines()
    assert json.loads(line)["message"] == "x\ny"


PRINTS = """
import ctypes, logging, os
from service.telemetry.logs import capture_standard_error, log_fatal, set_up_logging
set_up_logging("info", {style!r})
{capture}
os.write(2, b"a library's warning \\x1b[31m\\n")
logging.getLogger("service").info("an event")
threads = __import__("threading").enumerate()
os.close(2)  # the end of what libraries print
for thread in threads:
    if thread.name == "stderr":
        thread.join()
log_fatal("the end")
"""


def test_what_libraries_print_is_json_too() -> None:
    script = PRINTS.format(style="json", capture="capture_standard_error()")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {(line["level"], line["message"]) for line in lines} == {
        ("warning", "a library's warning \x1b[31m"),
        ("info", "an event"),
        ("critical", "the end"),
    }


def test_why_a_process_ends_is_a_plain_line_for_people() -> None:
    script = PRINTS.format(style="text", capture="").replace("os.close(2)", "")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr.splitlines()[-1] == b"the end"
