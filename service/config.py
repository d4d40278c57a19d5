"""Settings of the service, read once from FER_* variables.

An invalid variable is refused at start, by its name. No other module reads FER_* variables.
"""

import difflib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from service import rules
from service.rules import auto_or, choice, integer, number, read_device, read_path, read_text, rule

PREFIX = "FER_"
SHIPPED: Final[Mapping[str, Path]] = {
    name: Path(__file__).parent / "weights" / f"attention-fer-{name}.safetensors"
    for name in ("ferplus", "fer2013")
}
"""The checkpoints that are part of the service, by their name in FER_CHECKPOINT."""
SHIPPED_CHECKPOINT = SHIPPED["ferplus"]

DETECTOR_FILE = "retinaface_mobilenet025.safetensors"
_MIB = 1 << 20
# What Kubernetes and Docker set in a container for a service named fer or fer-something.
_LINK = re.compile(
    r"FER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_LINK_PORT = re.compile(r"FER_(\w+_)?PORT"), re.compile(r"(tcp|udp|sctp)://.+")
# Pairs of settings of which the first must not exceed the second.
_ORDERED = (
    ("max_batch", "queue_size"),
    ("max_images", "queue_size"),
    ("max_image_bytes", "max_request_bytes"),
    ("max_request_bytes", "max_buffered_bytes"),
)


def detector_path() -> Path:
    """Return the path of the detector's weights.

    Under XDG_CACHE_HOME, or ~/.cache; under the system's temporary folder for a user without a
    home, as containers may run.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError:  # no HOME, and the user id has no entry in the system's list
            cache = tempfile.gettempdir()
    return Path(cache) / "attention-fer" / DETECTOR_FILE


def is_service_link(key: str, text: str) -> bool:
    """Return whether a variable tells of another container, and is no setting.

    Kubernetes sets such variables in every pod of a namespace for each of its services, Docker for
    linked containers: a service named "fer" gives FER_PORT=tcp://10.0.0.1:8000.

    Args:
        key: The variable.
        text: Its value.
    """
    name, value = _LINK_PORT
    return bool(_LINK.fullmatch(key) or (name.fullmatch(key) and value.fullmatch(text)))


class SettingsError(Exception):
    """A variable is invalid; the message names it, its value and what is expected."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings. `FER_MAX_BATCH` sets `max_batch`, and so on.

    Attributes:
        device: The device of the network; several GPUs are separated by commas.
        checkpoint: The checkpoint file.
        prior: The prior of requests that name none, as text; auto depends on the checkpoint.
        detector: The face detector's weights; with None every picture is taken as one face.
        gpu_memory: Largest share of a GPU's memory for tensors.
        max_batch: Most faces in one batch; None measures at start which size is best.
        queue_size: Most faces that may wait.
        timeout_s: Seconds from a request's arrival to its answer, upload included.
        linger_ms: Milliseconds that a batch waits for more faces.
        max_image_bytes: Most bytes of one picture.
        max_image_pixels: Most pixels of one picture, before it is decoded.
        max_images: Most pictures of one request to /predict/batch.
        max_request_bytes: Most bytes of one request to /predict/batch.
        max_buffered_bytes: Most bytes of uploads held at once, of all requests together.
        max_decode_bytes: Most bytes of pictures being decoded, of all large ones together.
        decode_threads: Threads of each worker that decode pictures; None is one a core, shared
            among the workers, and at least two.
        torch_threads: Threads of one inference on a CPU.
        precision: Of the network on a GPU (on a CPU always float32), and of the detector.
        drain_s: Seconds to finish accepted requests at shutdown.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        log_level: The lowest level that is logged.
        log_format: Text for people, or JSON.
        max_connections: Most connections at once.
        header_timeout_s: Seconds for a request's head to arrive, and for an answer to be read.
        idle_timeout_s: Seconds that a connection may wait between two requests.
        workers: Number of worker processes; None is as many as the host has cores and memory for.
        engine: Whether each worker runs the network, or all share one engine process per device.
        api_keys: The accepted keys; without any, no key is required.
        open_paths: Paths that need no key.
        cors_origins: Origins of web pages whose scripts may use the service.
    """

    device: str = field(
        default="auto",
        metadata=rule(
            read_device,
            "auto, cpu, cuda, cuda:N or several cuda:N between commas",
            "where the network runs; auto prefers CUDA",
        ),
    )
    checkpoint: Path = field(
        default=SHIPPED_CHECKPOINT,
        metadata=rule(
            lambda text: SHIPPED.get(text) or read_path(text),
            f"{', '.join(SHIPPED)} or a path",
            "the checkpoint that is served",
        ),
    )
    prior: str = field(
        default="auto",
        metadata=rule(
            rules.read_prior,
            "auto, uniform, training, balanced or emotion:share,...",
            "how frequent each emotion is taken to be before a face is seen; auto: balanced where "
            "the checkpoint states its labels' prior, else training",
        ),
    )
    detector: Path | None = field(
        default_factory=detector_path,
        metadata=rule(
            lambda text: None if text.lower() == "none" else read_path(text),
            "a path, or none",
            "the face detector's weights, as set-up fetches them; none: every picture is one face",
        ),
    )
    gpu_memory: float = field(
        default=1.0,
        metadata=number(0.01, 1, "share of a GPU's memory that one engine's tensors may take"),
    )
    max_batch: int | None = field(
        default=None,
        metadata=auto_or(
            integer(1, 1024, "most faces in one inference; auto measures at start which is best")
        ),
    )
    queue_size: int = field(
        default=1024, metadata=integer(1, 1_000_000, "most faces that may wait")
    )
    timeout_s: float = field(
        default=10.0, metadata=number(0.05, 3600, "seconds from a request's arrival to its answer")
    )
    linger_ms: float = field(
        default=0.0, metadata=number(0, 1000, "milliseconds that a batch waits for more faces")
    )
    max_image_bytes: int = field(
        default=10 * _MIB, metadata=integer(1024, 1 << 30, "most bytes of one picture")
    )
    max_image_pixels: int = field(
        default=50_000_000, metadata=integer(1024, 10**9, "most pixels of one picture")
    )
    max_images: int = field(
        default=32, metadata=integer(1, 1024, "most pictures in one /predict/batch")
    )
    max_request_bytes: int = field(
        default=64 * _MIB, metadata=integer(1024, 1 << 32, "most bytes of one /predict/batch")
    )
    max_buffered_bytes: int = field(
        default=512 * _MIB, metadata=integer(1024, 1 << 40, "most bytes of all uploads at once")
    )
    max_decode_bytes: int = field(
        default=288 * _MIB,
        metadata=integer(
            32 * _MIB, 1 << 40, "most bytes that decoding takes, of all large pictures"
        ),
    )
    decode_threads: int | None = field(
        default=None,
        metadata=auto_or(
            integer(
                1,
                256,
                "threads of a worker that decode; auto shares the cores, two a worker or more",
            )
        ),
    )
    torch_threads: int = field(
        default=1, metadata=integer(1, 256, "threads of one inference on a CPU")
    )
    precision: Literal["auto", "float32"] = field(
        default="auto",
        metadata=choice(
            *("auto", "float32"),
            meaning="of the network on a GPU and of the face detector; auto: bfloat16 where it is "
            "multiplied natively",
        ),
    )
    drain_s: float = field(
        default=20.0, metadata=number(0, 3600, "seconds to finish accepted requests at shutdown")
    )
    host: str = field(
        default="0.0.0.0", metadata=rule(read_text, "an address or a name", "where to listen")
    )
    port: int = field(
        default=8000, metadata=integer(0, 65535, "port to listen on; 0 takes a free one")
    )
    log_level: str = field(
        default="info",
        metadata=choice("debug", "info", "warning", "error", meaning="what is logged"),
    )
    log_format: str = field(
        default="text", metadata=choice("text", "json", meaning="lines for people or JSON")
    )
    max_connections: int = field(
        default=8192, metadata=integer(1, 1_000_000, "most connections at once")
    )
    header_timeout_s: float = field(
        default=10.0,
        metadata=number(0.05, 3600, "seconds for a request's head, and to read an answer"),
    )
    idle_timeout_s: float = field(
        # Longer than common proxies keep an idle connection in their pools.
        default=75.0,
        metadata=number(0.05, 3600, "seconds between two requests of a connection"),
    )
    workers: int | None = field(
        default=None,
        metadata=auto_or(
            integer(
                *(1, 256),
                "processes; every other limit is of each of them; auto takes as many as there are "
                "cores, and memory for what each may hold",
            )
        ),
    )
    engine: str = field(
        default="auto",
        metadata=choice(
            *("auto", "in-process", "shared"),
            meaning="where the network runs: in each worker, or in one process a device that all "
            "workers share; auto shares it between several workers on CUDA",
            formerly={"inside": "in-process", "apart": "shared"},
        ),
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata=rule(
            rules.api_keys,
            "keys of 16 to 256 visible characters, separated by commas",
            "who may ask; everybody where there are none",
            secret=True,
        ),
    )
    open_paths: tuple[str, ...] = field(
        default=(
            "/health/live",
            "/health/ready",
            "/metrics",
            "/v2/health/live",
            "/v2/health/ready",
        ),
        metadata=rule(rules.paths, "paths separated by commas", "what needs no key"),
    )
    cors_origins: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            rules.origins,
            "origins like https://example.org separated by commas, or *",
            "web pages whose scripts may use the service",
        ),
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings.

        Args:
            environ: Variables by name, usually `os.environ`; those without the prefix are ignored.

        Returns:
            The settings, with defaults for missing variables.

        Raises:
            SettingsError: A variable with the prefix is unknown, out of range, or contradicts
                another.
        """
        rules = {key_of(f.name): f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key in sorted(k for k in environ if k.startswith(PREFIX)):
            if is_service_link(key, environ[key]):
                continue
            if key not in rules:
                raise SettingsError(f"{key} is not a setting{_nearest(key, list(rules))}")
            values[rules[key].name] = _parse(key, environ[key], rules[key].metadata)
        settings = cls(**cls._fit_defaults(values))
        settings.check()
        return settings

    @classmethod
    def _fit_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with those defaults changed that would contradict what was set."""
        defaults = {f.name: f.default for f in fields(cls)}
        fitted = dict(values)
        for small, large in _ORDERED:
            low = fitted.get(small, defaults[small])
            if large not in values and low is not None:
                fitted[large] = max(low, defaults[large])
        for small, large in reversed(_ORDERED):
            if small not in values and defaults[small] is not None:
                fitted[small] = min(fitted.get(small, defaults[small]), fitted[large])
        return fitted

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: Names both.
        """
        if len(self.devices) > 1 and self.engine == "in-process":
            raise SettingsError(
                f"{key_of('device')} names {len(self.devices)} devices, which takes "
                f"{key_of('engine')} shared or auto"
            )
        for small, large in _ORDERED:
            low, high = getattr(self, small), getattr(self, large)
            if low is not None and low > high:
                raise SettingsError(
                    f"{key_of(small)} is {low}, expected at most {key_of(large)}, which is {high}"
                )

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that `device` names, one or more."""
        return tuple(self.device.split(","))


def describe() -> Iterator[tuple[str, str, str]]:
    """Yield key, default and meaning of every setting, for a table or a help text."""
    defaults = Settings()
    for f in fields(Settings):
        yield (
            key_of(f.name),
            _shown(getattr(defaults, f.name)),
            f"{f.metadata['meaning']}; {f.metadata['expected']}",
        )


def _shown(default: object) -> str:
    for name, path in SHIPPED.items():
        if default == path:
            return name
    if default is None:
        return "auto"
    if isinstance(default, Path):
        return default.name
    return ",".join(default) if isinstance(default, tuple) else str(default)


def key_of(name: str) -> str:
    """Return the variable that sets the field `name`."""
    return PREFIX + name.upper()


def _parse(key: str, text: str, rule: Mapping[str, Any]) -> Any:
    try:
        return rule["parse"](text)
    except ValueError:
        found = "is not usable" if rule["secret"] else f"is {text!r}"
        raise SettingsError(f"{key} {found}, expected {rule['expected']}") from None


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the settings are {', '.join(known)}"
