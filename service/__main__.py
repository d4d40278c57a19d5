"""The server's command line: `python -m service`, configured by FER_* variables alone."""

import argparse
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import NoReturn

import uvicorn

from service.app import FaceEngine, create_app, open_engine
from service.config import Settings, SettingsError, describe
from service.engine import EngineError
from training.model.checkpoint import CheckpointError

BACKLOG = 2048
KEEP_ALIVE_S = 75  # longer than the pools of usual proxies keep an idle connection
EXIT_MISCONFIGURED = 2

_log = logging.getLogger("service")


def main() -> None:
    """Serve until SIGTERM or SIGINT; exits with 0 then, with 2 where it cannot start."""
    began = time.monotonic()
    _parse_arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn drains at the signal, then raises it again for whoever handled it before.
        signal.signal(number, _exit_well)
    try:
        settings = Settings.from_environ(os.environ)
        _set_up_logging(settings.log_level)
        with _bind(settings.host, settings.port) as listener:
            engine = open_engine(settings)
            _listen(listener)
            _Server(settings, engine, began).run(sockets=[listener])
    except (SettingsError, CheckpointError, EngineError) as error:
        print(f"attention-fer: {error}", file=sys.stderr)
        sys.exit(EXIT_MISCONFIGURED)
    sys.exit(0)


class _Server(uvicorn.Server):
    """Uvicorn, saying in one line that it is ready, where, with what and how soon."""

    def __init__(self, settings: Settings, engine: FaceEngine, began: float) -> None:
        self._app = create_app(settings, engine)
        config = uvicorn.Config(
            self._app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.drain_s),
        )
        super().__init__(config)
        self._engine = engine
        self._began = began

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was loaded stays for good: the garbage collector need not walk all of torch again
        # and again, stopping every request meanwhile.
        gc.collect()
        gc.freeze()
        manifest = self._engine.manifest
        _log.info(
            "ready at %s: %s %s on %s, after %.1f s",
            " ".join(_url(listener) for listener in sockets or ()),
            manifest.name,
            manifest.version,
            self._engine.device,
            time.monotonic() - self._began,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.service.begin_drain()
        await super().shutdown(sockets)


def _parse_arguments() -> None:
    rows = [f"  {key:24} {default:12} {meaning}" for key, default, meaning in describe()]
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve facial expression recognition over HTTP.",
        epilog="environment variables and their defaults:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Uvicorn tells its own start and end; what goes wrong is enough. The form parser would quote
    # the client's bytes at every malformed form.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before the seconds of loading; uvicorn listens on it when all is ready."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"cannot listen on FER_HOST={host} FER_PORT={port}: {error.strerror}"
        ) from None
    return listener


def _listen(listener: socket.socket) -> None:
    # Here and not by uvicorn: where another process was faster, uvloop would only log it.
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen any more: {error.strerror}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _exit_well(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main()
