"""The supervisor: starts the worker and engine processes, watches them, and replaces dead ones.

    supervisor ─▶ worker 0 ┐                                                       ┌▶ engine 0
               ─▶ worker 1 ┼▶ one listener, one folder in memory (workers, metrics) ─┤
               ─▶ worker 2 ┘                                    engine sockets     └▶ engine 1

Each worker is a new interpreter with its own limits. It has its own engine and queue, unless all
workers share one engine process per device. The supervisor itself does not load torch.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from service.config import Settings, key_of
from service.server.registry import REPORT_EVERY_S, WorkerRegistry, open_registry
from service.server.sockets import bind, format_url, stop_accepting
from service.telemetry.logs import log_fatal
from service.telemetry.shared_metrics import FOLDER_VARIABLE, retire_metrics

_LONGEST_PAUSE_S = 30.0
_HUNG_S = 60.0  # a process without a report for so long is killed
GRACE_S = 10.0
"""How long a process may take to exit after the drain."""
_SHARED_MEMORY = Path("/dev/shm")

EXIT_MISCONFIGURED = 2
"""The exit code of a process whose settings cannot be used."""

_log = logging.getLogger(__name__)


def refuse(error: Exception) -> NoReturn:
    """Write an error in one line, and exit with 2."""
    log_fatal(f"attention-fer: {error}")
    sys.exit(EXIT_MISCONFIGURED)


def exit_cleanly_on_signals() -> None:
    """Make SIGTERM and SIGINT end this process with 0, also during its start."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn drains at the signal, then raises it again for the previous handler.
        signal.signal(number, _exit_cleanly)


def _exit_cleanly(_number: int, _frame: FrameType | None) -> NoReturn:
    # Another signal must not interrupt the shutdown from here on.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def supervise(settings: Settings) -> int:
    """Run the workers until SIGTERM or SIGINT, then let them finish the accepted requests.

    Args:
        settings: The operator's, fitted to the host; each worker reads the same from its
            environment.

    Returns:
        The exit code: 0; 1 if a worker had to be killed; 2 if the first one could not start, and
        has printed why.

    Raises:
        SettingsError: The port cannot be bound.
    """
    in_memory = os.access(_SHARED_MEMORY, os.W_OK)
    with (
        bind(settings.host, settings.port) as listener,
        tempfile.TemporaryDirectory(
            prefix="attention-fer-",
            dir=_SHARED_MEMORY if in_memory else None,
            ignore_cleanup_errors=True,
        ) as folder,
    ):
        settings = replace(settings, port=listener.getsockname()[1])
        workers = open_registry(Path(folder), settings)
        chosen = {
            key_of(n): str(getattr(settings, n)) for n in ("port", "workers", "decode_threads")
        }
        environ = os.environ | chosen | {FOLDER_VARIABLE: folder}

        def start(slot: int) -> "subprocess.Popen[bytes]":
            serves = slot in workers.slots
            module = "service.worker" if serves else "service.server.engine_process"
            handed = (listener.fileno(),) if serves else ()
            command = [sys.executable, "-m", module, str(slot), folder]
            return subprocess.Popen(
                [*command, *map(str, handed)],
                pass_fds=handed,
                # The pipe closes when the supervisor dies. A separate process group: Ctrl-C
                # signals only the supervisor.
                stdin=subprocess.PIPE,
                process_group=0,
                env=environ,
            )

        stop = partial(stop_accepting, listener)
        return Supervisor(workers, start, settings.drain_s, format_url(listener), stop).run()


@dataclass
class _Process:
    """A slot with its process, or with None until it is started."""

    slot: int
    name: str
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps a process running in each slot; used in the main thread of its own process."""

    def __init__(
        self,
        workers: WorkerRegistry,
        start: "Callable[[int], subprocess.Popen[bytes]]",
        drain_s: float,
        url: str,
        stop_accepting: Callable[[], object] = lambda: None,
        grace_s: float = GRACE_S,
    ) -> None:
        """Create the supervisor; `run` starts the processes.

        Args:
            workers: The registry in which the processes report.
            start: Starts the process of a slot.
            drain_s: How long a process may take to finish.
            url: Of the service, for the log.
            stop_accepting: Called before the processes get SIGTERM.
            grace_s: How long a process may take to exit after `drain_s`.
        """
        self._workers, self._start = workers, start
        self._drain_s, self._grace_s = drain_s, grace_s
        self._url, self._stop_accepting = url, stop_accepting
        # Engines first, because the workers wait for them.
        self._processes = [
            _Process(slot, workers.name(slot).replace("-", " "))
            for slot in (*workers.engine_slots, *workers.slots)
        ]
        self._stopping = False
        self._started = False  # a process was healthy once: the settings are usable
        self._announced = False

    def run(self) -> int:
        """Run until a signal; returns the exit code of `supervise`."""
        with _signals(self._stop) as wait:
            while not self._stopping:
                if (failed := self._check()) is not None:
                    return failed
                self._announce()
                wait(REPORT_EVERY_S if self._announced else 0.1)
            return self._finish(wait)

    def _stop(self) -> None:
        self._stopping = True

    def _check(self) -> int | None:
        """Reap dead processes, kill hung ones, start missing ones; returns an exit code to stop."""
        for managed in self._processes:
            self._started = self._started or self._workers.is_healthy(managed.slot)
            if managed.process is not None and managed.process.poll() is not None:
                code = self._reap(managed)
                if not self._started:
                    return EXIT_MISCONFIGURED if code == EXIT_MISCONFIGURED else 1
            elif (
                managed.process is not None
                and self._workers.seconds_since_report(managed.slot) > _HUNG_S
            ):
                _log.error("%s hangs; killing it", managed.name)
                managed.process.kill()
            elif managed.process is None and self._may_start(managed):
                managed.process = self._start(managed.slot)
        return None

    def _may_start(self, managed: _Process) -> bool:
        # The first one starts alone, so that an error of all is reported once.
        first = managed is self._processes[0]
        return (
            time.monotonic() >= managed.start_at
            and (first or self._started)
            and self._engine_ready(managed)
        )

    def _engine_ready(self, managed: _Process) -> bool:
        """Return whether a worker that needs an engine process has a healthy one."""
        engines = self._workers.engine_slots
        return not engines or managed.slot in engines or any(map(self._workers.is_healthy, engines))

    def _reap(self, managed: _Process) -> int:
        assert managed.process is not None  # the caller asked it
        code: int = managed.process.wait()
        assert managed.process.stdin is not None  # `start` made a pipe
        managed.process.stdin.close()
        served = self._workers.seconds_since_report(managed.slot) > 0
        self._workers.clear(managed.slot)
        retire_metrics(self._workers.folder, managed.slot, managed.process.pid)
        managed.process, managed.failures = None, 0 if served else managed.failures + 1
        pause_s = min(_LONGEST_PAUSE_S, 0.5 * 2**managed.failures) if managed.failures else 0.0
        managed.start_at = time.monotonic() + pause_s
        self._announced = False
        if not self._stopping and (self._started or code != EXIT_MISCONFIGURED):
            again = f"starts again in {pause_s:.0f} s" if self._started else "giving up"
            _log.error("%s ended with %d; %s", managed.name, code, again)
        return code

    def _announce(self) -> None:
        if not self._announced and self._workers.all_healthy():
            self._announced = True
            _log.info("all %d workers are ready at %s", len(self._workers.slots), self._url)

    def _finish(self, wait: Callable[[float], None]) -> int:
        _log.info("a signal asked for the end; the workers finish what they accepted")
        self._stop_accepting()
        # The engines end last: until then the workers need them for accepted requests.
        codes = [
            self._end(slots, wait) for slots in (self._workers.slots, self._workers.engine_slots)
        ]
        return max(codes)

    def _end(self, slots: range, wait: Callable[[float], None]) -> int:
        """Let the processes of these slots finish; returns 1 if one had to be killed."""
        for managed in self._running(slots):
            _signal(managed, signal.SIGTERM)
        give_up = time.monotonic() + self._drain_s + self._grace_s
        while self._running(slots) and time.monotonic() < give_up:
            for managed in self._running(slots):
                if managed.process is not None and managed.process.poll() is not None:
                    self._reap(managed)
            wait(0.1)
        for managed in (killed := self._running(slots)):
            _log.error("%s did not end in time; killing it", managed.name)
            _signal(managed, signal.SIGKILL)
            self._reap(managed)
        return 1 if killed else 0

    def _running(self, slots: range) -> list[_Process]:
        return [
            managed
            for managed in self._processes
            if managed.slot in slots and managed.process is not None
        ]


def _signal(managed: _Process, number: int) -> None:
    if managed.process is not None:
        managed.process.send_signal(number)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[Callable[[float], None]]:
    """Call `stop` at SIGTERM and SIGINT; yields a wait function that any signal interrupts."""
    receiver, sender = socket.socketpair()
    with receiver, sender, selectors.DefaultSelector() as selector:
        receiver.setblocking(False)
        sender.setblocking(False)
        selector.register(receiver, selectors.EVENT_READ)

        def wait(seconds: float) -> None:
            if selector.select(seconds):
                receiver.recv(4096)

        handlers = {
            signal.SIGTERM: lambda *_: stop(),
            signal.SIGINT: lambda *_: stop(),
            signal.SIGCHLD: lambda *_: None,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield wait
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
