"""Tests of `service.config`: every variable, and each way in which one can be wrong."""

import tempfile
from dataclasses import fields
from pathlib import Path

import pytest

from service.config import (
    SHIPPED,
    SHIPPED_CHECKPOINT,
    Settings,
    SettingsError,
    describe,
    detector_path,
    key_of,
)


def test_defaults() -> None:
    settings = Settings.from_environ({"PATH": "/bin", "HOME": "/"})
    assert settings == Settings()
    assert settings.checkpoint == SHIPPED_CHECKPOINT
    assert (settings.max_batch, settings.queue_size, settings.timeout_s) == (None, 1024, 10.0)
    assert (settings.max_image_bytes, settings.max_image_pixels) == (10 << 20, 50_000_000)
    assert (settings.device, settings.host, settings.port) == ("auto", "0.0.0.0", 8000)
    assert (settings.workers, settings.decode_threads) == (None, None)  # chosen for the host


DEVICES = "auto, cpu, cuda, cuda:N or several cuda:N between commas"
CHOSEN = {
    "device": ("cuda:1", "cuda:1"),
    "checkpoint": ("/models/x.safetensors", Path("/models/x.safetensors")),
    "prior": ("anger:1,joy:2", "anger:1,joy:2"),
    "detector": ("/models/face.tflite", Path("/models/face.tflite")),
    "gpu_memory": ("0.5", 0.5),
    "max_batch": ("8", 8),
    "queue_size": ("64", 64),
    "timeout_s": ("2.5", 2.5),
    "linger_ms": ("1", 1.0),
    "max_image_bytes": ("4096", 4096),
    "max_image_pixels": ("90000", 90000),
    "max_images": ("4", 4),
    "max_request_bytes": ("8192", 8192),
    "max_buffered_bytes": ("65536", 65536),
    "max_decode_bytes": ("99999999", 99999999),
    "decode_threads": ("3", 3),
    "torch_threads": ("2", 2),
    "precision": ("float32", "float32"),
    "drain_s": ("0", 0.0),
    "host": ("127.0.0.1", "127.0.0.1"),
    "port": ("0", 0),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("JSON", "json"),
    "max_connections": ("100", 100),
    "header_timeout_s": ("5", 5.0),
    "idle_timeout_s": ("60", 60.0),
    "workers": ("3", 3),
    "engine": ("Shared", "shared"),
    "api_keys": ("0123456789abcdef, fedcba9876543210,", ("0123456789abcdef", "fedcba9876543210")),
    "open_paths": ("/docs,/openapi.json", ("/docs", "/openapi.json")),
    "cors_origins": ("https://a.example,http://[::1]:80", ("https://a.example", "http://[::1]:80")),
}


def test_the_batch_limit_may_be_measured_by_name() -> None:
    assert Settings.from_environ({"FER_MAX_BATCH": "AUTO"}).max_batch is None


@pytest.mark.parametrize("name", ["auto", "uniform", "training", "balanced"])
def test_a_prior_may_be_named(name: str) -> None:
    assert Settings.from_environ({"FER_PRIOR": name.upper()}).prior == name


def test_every_variable_sets_its_field() -> None:
    assert CHOSEN.keys() == {f.name for f in fields(Settings)}
    settings = Settings.from_environ({key_of(name): text for name, (text, _) in CHOSEN.items()})
    assert {name: getattr(settings, name) for name in CHOSEN} == {
        name: value for name, (_, value) in CHOSEN.items()
    }


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("FER_DEVICE", "gpu", DEVICES),
        ("FER_DEVICE", "cuda:", DEVICES),
        ("FER_DEVICE", "cpu:0", DEVICES),
        ("FER_CHECKPOINT", " ", "ferplus, fer2013 or a path"),
        ("FER_PRIOR", "even", "auto, uniform, training, balanced or emotion:share,..."),
        ("FER_PRIOR", "", "auto, uniform, training, balanced or emotion:share,..."),
        ("FER_MAX_BATCH", "0", "auto or a whole number from 1 to 1024"),
        ("FER_MAX_BATCH", "many", "auto or a whole number from 1 to 1024"),
        ("FER_MAX_BATCH", "1.5", "auto or a whole number from 1 to 1024"),
        ("FER_QUEUE_SIZE", "", "a whole number from 1 to 1000000"),
        ("FER_TIMEOUT_S", "nan", "a number from 0.05 to 3600"),
        ("FER_TIMEOUT_S", "inf", "a number from 0.05 to 3600"),
        ("FER_LINGER_MS", "-1", "a number from 0 to 1000"),
        ("FER_PORT", "65536", "a whole number from 0 to 65535"),
        ("FER_HOST", "", "an address or a name"),
        ("FER_OPEN_PATHS", "metrics", "paths separated by commas"),
        (
            "FER_CORS_ORIGINS",
            "https://a.example/b",
            "origins like https://example.org separated by commas, or *",
        ),
        ("FER_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_wrong_value_is_named(key: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({key: text})
    assert str(caught.value) == f"{key} is {text!r}, expected {expected}"


def test_several_devices_are_named_once_each_and_want_engines_apart() -> None:
    assert Settings.from_environ({"FER_DEVICE": "cuda:0, cuda:1"}).devices == ("cuda:0", "cuda:1")
    for text in ("cuda:0,cuda:0", "cuda:0,", "cpu,cuda:0", "cuda:00", "cuda,cuda:1"):
        with pytest.raises(SettingsError, match="FER_DEVICE is"):
            Settings.from_environ({"FER_DEVICE": text})
    with pytest.raises(SettingsError, match="FER_DEVICE names 2 devices, which takes FER_ENGINE"):
        Settings.from_environ({"FER_DEVICE": "cuda:0,cuda:1", "FER_ENGINE": "in-process"})


@pytest.mark.parametrize(
    "keys", ["short-secret", "0123456789abcdef,short", "0123456789abcde\u00e9"]
)
def test_a_key_is_never_shown(keys: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"FER_API_KEYS": keys})
    assert str(caught.value).startswith("FER_API_KEYS is not usable, expected keys of 16")
    assert "0123456789abcdef" not in repr(Settings(api_keys=("0123456789abcdef",)))


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match=r"^FER_MAX_BACH is not a setting; did you mean FER_MAX"
    ):
        Settings.from_environ({"FER_MAX_BACH": "8"})
    with pytest.raises(SettingsError, match=r"^FER_ZZZ is not a setting; the settings are FER_DEV"):
        Settings.from_environ({"FER_ZZZ": "1"})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        # Kubernetes, for the services fer and fer-web of a namespace.
        ("FER_PORT", "tcp://10.96.0.7:8000"),
        ("FER_SERVICE_HOST", "10.96.0.7"),
        ("FER_SERVICE_PORT", "8000"),
        ("FER_SERVICE_PORT_HTTP", "8000"),
        ("FER_PORT_8000_TCP", "tcp://10.96.0.7:8000"),
        ("FER_PORT_8000_TCP_ADDR", "10.96.0.7"),
        ("FER_PORT_8000_TCP_PORT", "8000"),
        ("FER_PORT_8000_TCP_PROTO", "tcp"),
        ("FER_PORT_53_UDP", "udp://10.96.0.7:53"),
        ("FER_WEB_PORT", "tcp://10.96.0.8:80"),
        ("FER_WEB_SERVICE_HOST", "10.96.0.8"),
        ("FER_WEB_PORT_80_TCP_ADDR", "10.96.0.8"),
    ],
)
def test_what_tells_of_another_container_is_no_setting(key: str, text: str) -> None:
    assert Settings.from_environ({key: text, "FER_MAX_BATCH": "8"}) == Settings(max_batch=8)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("FER_PORT", "8000/tcp"),
        ("FER_PORTS", "tcp://10.96.0.7:8000"),
        ("FER_WEB_PORT", "80"),
        ("FER_PORT_8000", "x"),
        ("FER_HOSTS", "10.96.0.7"),
    ],
)
def test_what_only_looks_like_it_is_named(key: str, text: str) -> None:
    with pytest.raises(SettingsError, match=key):
        Settings.from_environ({key: text})


def test_a_set_port_is_taken() -> None:
    environ = {"FER_PORT": "9000", "FER_SERVICE_HOST": "10.96.0.7"}
    assert Settings.from_environ(environ).port == 9000


@pytest.mark.parametrize(
    ("environ", "fitted"),
    [
        ({"FER_QUEUE_SIZE": "16"}, {"max_images": 16, "max_batch": None}),
        ({"FER_MAX_IMAGES": "1024", "FER_MAX_BATCH": "1024"}, {"queue_size": 1024}),
        ({"FER_MAX_REQUEST_BYTES": "4096"}, {"max_image_bytes": 4096}),
        (
            {"FER_MAX_BUFFERED_BYTES": "4096"},
            {"max_request_bytes": 4096, "max_image_bytes": 4096},
        ),
        (
            {"FER_MAX_IMAGE_BYTES": str(1 << 30)},
            {"max_request_bytes": 1 << 30, "max_buffered_bytes": 1 << 30},
        ),
    ],
)
def test_defaults_give_way_to_what_was_set(
    environ: dict[str, str], fitted: dict[str, int | None]
) -> None:
    settings = Settings.from_environ(environ)
    assert {name: getattr(settings, name) for name in fitted} == fitted


@pytest.mark.parametrize("text", ["none", "None"])
def test_the_detector_may_be_left_out_by_name(text: str) -> None:
    assert Settings.from_environ({"FER_DETECTOR": text}).detector is None


@pytest.mark.parametrize("cache", ["", "/caches"])
def test_a_user_without_a_home_has_a_detector_somewhere(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert detector_path().parent.parent == Path(cache or tempfile.gettempdir())


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"FER_QUEUE_SIZE": "16", "FER_MAX_BATCH": "32"},
            "FER_MAX_BATCH is 32, expected at most FER_QUEUE_SIZE",
        ),
        ({"FER_MAX_IMAGES": "1024", "FER_QUEUE_SIZE": "100"}, "FER_MAX_IMAGES is 1024"),
        (
            {"FER_MAX_REQUEST_BYTES": "1024", "FER_MAX_IMAGE_BYTES": "2048"},
            "FER_MAX_IMAGE_BYTES is 2048",
        ),
        (
            {"FER_MAX_BUFFERED_BYTES": "1024", "FER_MAX_REQUEST_BYTES": "2048"},
            "FER_MAX_REQUEST_BYTES is 2048",
        ),
    ],
)
def test_contradictions_are_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_environ(environ)


def test_settings_are_described_with_their_defaults() -> None:
    rows = {key: (default, meaning) for key, default, meaning in describe()}
    assert rows.keys() == {key_of(f.name) for f in fields(Settings)}
    assert rows["FER_PORT"][0] == "8000"
    assert rows["FER_MAX_BATCH"][0] == "auto"
    assert rows["FER_CHECKPOINT"][0] in SHIPPED
    assert SHIPPED[rows["FER_CHECKPOINT"][0]] == SHIPPED_CHECKPOINT
    assert all(len(meaning) > 10 for _, meaning in rows.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_is_named_or_a_path_is(name: str, tmp_path: Path) -> None:
    assert Settings.from_environ({"FER_CHECKPOINT": name}).checkpoint == SHIPPED[name]
    other = tmp_path / name
    assert Settings.from_environ({"FER_CHECKPOINT": str(other)}).checkpoint == other


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]
