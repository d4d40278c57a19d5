"""The server's command line: `python -m service`, configured by FER_* variables."""

import argparse
import os
import sys

from service.config import Settings, SettingsError, describe
from service.server.supervisor import exit_cleanly_on_signals, refuse, supervise
from service.server.topology import engine_devices
from service.telemetry.logs import set_up_logging


def main() -> None:
    """Serve until SIGTERM or SIGINT; exits with 0, or with 2 if it cannot start."""
    _parse_arguments()
    try:
        settings = Settings.from_environ(os.environ)
        set_up_logging(settings.log_level, settings.log_format)
        if settings.workers > 1 or engine_devices(settings):
            sys.exit(supervise(settings))
        _serve_alone(settings)
    except SettingsError as error:
        refuse(error)
    sys.exit(0)


def _serve_alone(settings: Settings) -> None:
    # Imported here: a supervisor does not need torch, which takes much memory.
    from service.app import serve
    from service.engine.errors import EngineError
    from service.server.sockets import bind
    from training.model.manifest import CheckpointError

    exit_cleanly_on_signals()
    try:
        # Bind first: loading takes seconds, and a port in use should be reported at once.
        with bind(settings.host, settings.port) as listener:
            serve(settings, listener)
    except (CheckpointError, EngineError) as error:
        refuse(error)


def _parse_arguments() -> None:
    rows = [f"  {key:24} {default:12} {meaning}" for key, default, meaning in describe()]
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve facial expression recognition over HTTP.",
        epilog="environment variables and their defaults:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()


if __name__ == "__main__":
    main()
