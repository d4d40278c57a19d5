"""The format of the log: one line per event, as text or JSON, with the request's id.

No module logs the content of a picture.
"""

import contextlib
import faulthandler
import json
import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime

from service.telemetry import request_id

_STANDARD_ERROR = 2
_MAX_PRINTED = 1000  # characters of a library's line

_log = logging.getLogger(__name__)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def set_up_logging(level: str, style: str = "text", process: str | None = None) -> None:
    """Send this process's log to standard error, once.

    Args:
        level: debug, info, warning or error.
        style: text or json.
        process: The name of this process if there are several, e.g. "worker-1".
    """
    # A descriptor of its own, because `capture_standard_error` redirects the usual one.
    handler = DescriptorHandler(os.dup(_STANDARD_ERROR))
    handler.setFormatter(JsonFormatter(process) if style == "json" else TextFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Uvicorn logs its start and end, and a warning for each mistake of a client. The form parser
    # would quote the client's bytes for every malformed form.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def capture_standard_error() -> None:
    """Log each line that libraries in C print on standard error; once, after `set_up_logging`.

    Decoders print warnings about pictures there, whatever the format of the log is. The traceback
    of a crash is still written to standard error itself.
    """
    faulthandler.enable(os.dup(_STANDARD_ERROR))
    reader, writer = os.pipe()
    os.dup2(writer, _STANDARD_ERROR)
    os.close(writer)
    threading.Thread(target=_log_lines, args=(reader,), daemon=True, name="stderr").start()


def log_fatal(message: str) -> None:
    """Write why this process ends: a plain line, or a line of the log if that is JSON.

    Args:
        message: One line.
    """
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, JsonFormatter) for handler in handlers):
        _log.critical("%s", message)
    else:
        sys.stderr.write(f"{message}\n")


def _log_lines(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="backslashreplace") as printed:
        for line in printed:
            logging.getLogger("stderr").warning("%s", line.rstrip("\n")[:_MAX_PRINTED])


class DescriptorHandler(logging.Handler):
    """Writes each line with one system call, and drops it where that fails.

    A Python stream would keep what a full disk did not accept, and fail at exit because of it.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to an open file descriptor, which the caller owns."""
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        line = self.format(record) + "\n"
        # A full disk or a closed pipe must not fail the code that logs.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))


class TextFormatter(logging.Formatter):
    """Lines for people. Control characters are escaped, so that no message can forge a line."""

    def __init__(self, process: str | None = None) -> None:
        """Name the process in each line, if there are several."""
        super().__init__()
        self._process = "" if process is None else f" {process}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback indented below it."""
        name = request_id.current()
        line = (
            f"{_time(record)} {record.levelname}{self._process} {record.name}"
            f"{f' [{name}]' if name else ''}: {_escaped(record.getMessage())}"
        )
        if record.exc_info:
            for row in self.formatException(record.exc_info).split("\n"):
                line += f"\n    {_escaped(row)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line, for programs."""

    def __init__(self, process: str | None = None) -> None:
        """Name the process in each line, if there are several."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the object: time, level, logger, message, and the other fields that are set."""
        fields: dict[str, str | None] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": self._process,
            "request_id": request_id.current(),
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
        }
        # ASCII only, so that every control character is escaped.
        return json.dumps({key: value for key, value in fields.items() if value is not None})


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
