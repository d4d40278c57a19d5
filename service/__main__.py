"""The server's command line: `python -m service`, configured by FER_* variables."""

import argparse
import logging
import os
import sys

from service.config import Settings, SettingsError, describe, is_service_link
from service.server.supervisor import exit_cleanly_on_signals, refuse, supervise
from service.server.topology import engine_bytes, engine_devices, fit_to_host, worker_bytes
from service.telemetry.logs import set_up_logging
from service.threads import run_and_exit

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or SIGINT; exits with 0, or with 2 if it cannot start."""
    if sys.argv[1:2] == ["crop"]:
        from service.crop import main as crop  # it loads torch, which a supervisor does not need

        sys.exit(crop(sys.argv[2:]))
    _parse_arguments()
    try:
        settings = fit_to_host(Settings.from_environ(os.environ))
        set_up_logging(settings.log_level, settings.log_format)
        _log_topology(settings)
        if settings.workers != 1 or engine_devices(settings):
            sys.exit(supervise(settings))
        _serve_alone(settings)
    except SettingsError as error:
        refuse(error)
    sys.exit(0)


def _log_topology(settings: Settings) -> None:
    """Log what was chosen for this host, and which variables were taken for no settings."""
    for key in sorted(key for key, text in os.environ.items() if is_service_link(key, text)):
        _log.debug("%s tells of another container; it is no setting", key)
    engines = engine_devices(settings)
    before = f"; engines on {', '.join(engines)}: {engine_bytes(settings) >> 20} MiB"
    _log.info(
        "workers: %d, decoding threads of each: %d, memory of each: at most %d MiB%s",
        settings.workers,
        settings.decode_threads,
        worker_bytes(settings) >> 20,
        before if engines else "",
    )


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
        description="Serve facial expression recognition over HTTP. "
        "`python -m service crop` cuts faces out of a folder of photographs.",
        epilog="environment variables and their defaults:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()


if __name__ == "__main__":
    run_and_exit(main)
