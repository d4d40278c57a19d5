"""Settings of the service: read once from FER_* variables, refused at start by the key's name.

Not its duty: acting on them. Nothing else in the service reads the environment.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "FER_"
SHIPPED_CHECKPOINT = Path(__file__).parent / "weights" / "attention-fer-fer2013.safetensors"

_MIB = 1 << 20


class SettingsError(Exception):
    """A variable that cannot be used; the message names it, its value and what is expected."""


def _cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rule(parse: Callable[[str], Any], expected: str, meaning: str) -> dict[str, Any]:
    """Return a field's metadata: how its text is read, what is expected, what it is for."""
    return {"parse": parse, "expected": expected, "meaning": meaning}


def _integer(low: int, high: int, meaning: str) -> dict[str, Any]:
    def parse(text: str) -> int:
        value = int(text, 10)
        if not low <= value <= high:
            raise ValueError
        return value

    return _rule(parse, f"a whole number from {low} to {high}", meaning)


def _number(low: float, high: float, meaning: str) -> dict[str, Any]:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # also refuses NaN, which compares false
            raise ValueError
        return value

    return _rule(parse, f"a number from {low:g} to {high:g}", meaning)


def _choice(*names: str, meaning: str) -> dict[str, Any]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError
        return text.lower()

    return _rule(parse, f"one of {', '.join(names)}", meaning)


def _device(text: str) -> str:
    kind, colon, index = text.partition(":")
    numbered = kind == "cuda" and colon and index.isascii() and index.isdigit()
    if text not in ("auto", "cpu", "cuda") and not numbered:
        raise ValueError
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


@dataclass(frozen=True)
class Settings:
    """What an operator may choose. `FER_MAX_BATCH` sets `max_batch`, and so on.

    Attributes:
        device: Where the network runs.
        checkpoint: The file that is served.
        max_batch: Most faces that the network sees at once.
        queue_size: Most faces that may wait.
        timeout_s: Seconds from a request's arrival to its answer, upload included.
        linger_ms: Milliseconds that a batch waits for more faces.
        max_image_bytes: Most bytes of one picture.
        max_image_pixels: Most pixels of one picture, before it is decoded.
        max_images: Most pictures of one request to /predict/batch.
        max_request_bytes: Most bytes of one request to /predict/batch.
        max_buffered_bytes: Most bytes of uploads held at once, of all requests together.
        decode_threads: Threads that decode pictures.
        torch_threads: Threads that one inference uses on a CPU.
        drain_s: Seconds to finish accepted requests at shutdown.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        log_level: What is logged.
    """

    device: str = field(
        default="auto",
        metadata=_rule(
            _device, "auto, cpu, cuda or cuda:N", "where the network runs; auto prefers CUDA"
        ),
    )
    checkpoint: Path = field(
        default=SHIPPED_CHECKPOINT,
        metadata=_rule(_path, "a path", "the checkpoint that is served"),
    )
    max_batch: int = field(default=32, metadata=_integer(1, 1024, "most faces in one inference"))
    queue_size: int = field(
        default=1024, metadata=_integer(1, 1_000_000, "most faces that may wait")
    )
    timeout_s: float = field(
        default=10.0, metadata=_number(0.05, 3600, "seconds from a request's arrival to its answer")
    )
    linger_ms: float = field(
        default=0.0, metadata=_number(0, 1000, "milliseconds that a batch waits for more faces")
    )
    max_image_bytes: int = field(
        default=10 * _MIB, metadata=_integer(1024, 1 << 30, "most bytes of one picture")
    )
    max_image_pixels: int = field(
        default=50_000_000, metadata=_integer(1024, 10**9, "most pixels of one picture")
    )
    max_images: int = field(
        default=32, metadata=_integer(1, 1024, "most pictures in one /predict/batch")
    )
    max_request_bytes: int = field(
        default=64 * _MIB, metadata=_integer(1024, 1 << 32, "most bytes of one /predict/batch")
    )
    max_buffered_bytes: int = field(
        default=512 * _MIB, metadata=_integer(1024, 1 << 40, "most bytes of all uploads at once")
    )
    decode_threads: int = field(
        default_factory=_cores, metadata=_integer(1, 256, "threads that decode; one a core")
    )
    torch_threads: int = field(
        default=1, metadata=_integer(1, 256, "threads of one inference on a CPU")
    )
    drain_s: float = field(
        default=20.0, metadata=_number(0, 3600, "seconds to finish accepted requests at shutdown")
    )
    host: str = field(
        default="0.0.0.0", metadata=_rule(_text, "an address or a name", "where to listen")
    )
    port: int = field(
        default=8000, metadata=_integer(0, 65535, "port to listen on; 0 takes a free one")
    )
    log_level: str = field(
        default="info",
        metadata=_choice("debug", "info", "warning", "error", meaning="what is logged"),
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings.

        Args:
            environ: Variables by name, usually `os.environ`; those without the prefix are ignored.

        Returns:
            The settings, with the default of every variable that is not there.

        Raises:
            SettingsError: A variable with the prefix that is unknown, has a value out of range,
                or contradicts another.
        """
        rules = {key_of(f.name): f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key in sorted(k for k in environ if k.startswith(PREFIX)):
            if key not in rules:
                raise SettingsError(f"{key} is not a setting{_nearest(key, list(rules))}")
            values[rules[key].name] = _parse(key, environ[key], rules[key].metadata)
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: Names both.
        """
        for small, large in (
            ("max_batch", "queue_size"),
            ("max_images", "queue_size"),
            ("max_image_bytes", "max_request_bytes"),
            ("max_request_bytes", "max_buffered_bytes"),
        ):
            low, high = getattr(self, small), getattr(self, large)
            if low > high:
                raise SettingsError(
                    f"{key_of(small)} is {low}, expected at most {key_of(large)}, which is {high}"
                )


def describe() -> Iterator[tuple[str, str, str]]:
    """Yield key, default and meaning of every setting, for a table or a help text."""
    defaults = Settings()
    for f in fields(Settings):
        default = getattr(defaults, f.name)
        shown = default.name if isinstance(default, Path) else f"{default}"
        yield key_of(f.name), shown, f"{f.metadata['meaning']}; {f.metadata['expected']}"


def key_of(name: str) -> str:
    """Return the variable that sets the field `name`."""
    return PREFIX + name.upper()


def _parse(key: str, text: str, rule: Mapping[str, Any]) -> Any:
    try:
        return rule["parse"](text)
    except ValueError:
        raise SettingsError(f"{key} is {text!r}, expected {rule['expected']}") from None


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the settings are {', '.join(known)}"
