"""Several processes that serve side by side, under a supervisor that only starts and watches.

    supervisor ─▶ worker 0 ┐                                                       ┌▶ engine 0
               ─▶ worker 1 ┼▶ one listener, one folder in memory (workers, metrics) ─┤
               ─▶ worker 2 ┘                                    sockets, or nobody └▶ engine 1

Each worker is a fresh interpreter with limits of its own; with an engine and a queue of its own
too, unless there is an engine process a device for all of them. Whoever dies is replaced; the
others go on. Not its duty: serving (`service.server.process`); the supervisor
loads no torch.
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
from service.server.sockets import bind, take_no_more, url_of
from service.telemetry.shared_metrics import FOLDER_VARIABLE, retire_metrics

_LONGEST_PAUSE_S = 30.0
_HUNG_S = 60.0  # an event loop that has not turned for so long is not coming back
_GRACE_S = 10.0  # beyond the drain, for a worker to end
_SHARED_MEMORY = Path("/dev/shm")

EXIT_MISCONFIGURED = 2
"""How a process ends that cannot serve what its settings say."""

_log = logging.getLogger(__name__)


def refuse(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    sys.stderr.write(f"attention-fer: {error}\n")
    sys.exit(EXIT_MISCONFIGURED)


def exit_well_on_signals() -> None:
    """Have SIGTERM and SIGINT end this process with 0, also while it starts."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn drains at the signal, then raises it again for whoever handled it before.
        signal.signal(number, _exit_well)


def _exit_well(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def supervise(settings: Settings) -> int:
    """Run the workers until SIGTERM or SIGINT, then have them finish what they accepted.

    Args:
        settings: The operator's; each worker reads the same from its environment.

    Returns:
        The exit code: 0, or 1 where a worker had to be killed, or 2 where the first one could not
        start; it has said why then.

    Raises:
        SettingsError: The port cannot be had.
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
        environ = os.environ | {key_of("port"): str(settings.port), FOLDER_VARIABLE: folder}

        def start(slot: int) -> "subprocess.Popen[bytes]":
            serves = slot in workers.slots
            module = "service.worker" if serves else "service.server.engine_process"
            handed = (listener.fileno(),) if serves else ()
            command = [sys.executable, "-m", module, str(slot), folder]
            return subprocess.Popen(
                [*command, *map(str, handed)],
                pass_fds=handed,
                # Its end tells the process of ours. A group of its own: Ctrl-C is for us alone.
                stdin=subprocess.PIPE,
                process_group=0,
                env=environ,
            )

        leave = partial(take_no_more, listener)
        return Supervisor(workers, start, settings.drain_s, url_of(listener), leave).run()


@dataclass
class _Post:
    """A process's place, taken or to be taken again."""

    slot: int
    title: str
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps a process in each slot; for the main thread of one that does nothing else."""

    def __init__(
        self,
        workers: WorkerRegistry,
        start: "Callable[[int], subprocess.Popen[bytes]]",
        drain_s: float,
        url: str,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Where the processes report.
            start: Starts that of a slot.
            drain_s: How long it may take to finish.
            url: Where the workers listen, for the log.
            leave: Called before they are told to finish.
        """
        self._workers, self._start = workers, start
        self._drain_s, self._url, self._leave = drain_s, url, leave
        # Engines first, because the workers wait for them.
        self._posts = [
            _Post(slot, workers.title(slot).replace("-", " "))
            for slot in (*workers.engine_slots, *workers.slots)
        ]
        self._stopping = False
        self._proven = False  # the first process was well once: the settings can be served
        self._announced = False

    def run(self) -> int:
        """Run until a signal; returns the exit code of `supervise`."""
        with _signals(self._stop) as wait:
            while not self._stopping:
                if (failed := self._tend()) is not None:
                    return failed
                self._announce()
                wait(REPORT_EVERY_S if self._announced else 0.1)
            return self._finish(wait)

    def _stop(self) -> None:
        self._stopping = True

    def _tend(self) -> int | None:
        """Bury, replace and start; returns an exit code where it makes no sense to go on."""
        for post in self._posts:
            self._proven = self._proven or self._workers.well(post.slot)
            if post.process is not None and post.process.poll() is not None:
                code = self._bury(post)
                if not self._proven:
                    return EXIT_MISCONFIGURED if code == EXIT_MISCONFIGURED else 1
            elif post.process is not None and self._workers.silent_s(post.slot) > _HUNG_S:
                _log.error("%s hangs; killing it", post.title)
                post.process.kill()
            elif post.process is None and self._may_start(post):
                post.process = self._start(post.slot)
        return None

    def _may_start(self, post: _Post) -> bool:
        # The first one alone, so that what all of them would fail on is said once.
        first = post is self._posts[0]
        return time.monotonic() >= post.start_at and (first or self._proven) and self._served(post)

    def _served(self, post: _Post) -> bool:
        """Whether there is an engine for a worker that has none inside."""
        engines = self._workers.engine_slots
        return not engines or post.slot in engines or any(map(self._workers.well, engines))

    def _bury(self, post: _Post) -> int:
        assert post.process is not None  # the caller asked it
        code: int = post.process.wait()
        assert post.process.stdin is not None  # `start` made a pipe
        post.process.stdin.close()
        served = self._workers.silent_s(post.slot) > 0
        self._workers.wipe(post.slot)
        retire_metrics(self._workers.folder, post.slot, post.process.pid)
        post.process, post.failures = None, 0 if served else post.failures + 1
        pause_s = min(_LONGEST_PAUSE_S, 0.5 * 2**post.failures) if post.failures else 0.0
        post.start_at = time.monotonic() + pause_s
        self._announced = False
        if not self._stopping and (self._proven or code != EXIT_MISCONFIGURED):
            again = f"again in {pause_s:.0f} s" if self._proven else "giving up"
            _log.error("%s ended with %d; %s", post.title, code, again)
        return code

    def _announce(self) -> None:
        if not self._announced and self._workers.all_well():
            self._announced = True
            _log.info("all %d workers are ready at %s", len(self._workers.slots), self._url)

    def _finish(self, wait: Callable[[float], None]) -> int:
        self._leave()
        # The engines last: until then the workers answer what they accepted.
        codes = [
            self._end(slots, wait) for slots in (self._workers.slots, self._workers.engine_slots)
        ]
        return max(codes)

    def _end(self, slots: range, wait: Callable[[float], None]) -> int:
        """Have the processes of these slots finish; returns 1 where one had to be killed."""
        for post in self._living(slots):
            _signal(post, signal.SIGTERM)
        give_up = time.monotonic() + self._drain_s + _GRACE_S
        while self._living(slots) and time.monotonic() < give_up:
            for post in self._living(slots):
                if post.process is not None and post.process.poll() is not None:
                    self._bury(post)
            wait(0.1)
        for post in (killed := self._living(slots)):
            _log.error("%s did not end in time; killing it", post.title)
            _signal(post, signal.SIGKILL)
            self._bury(post)
        return 1 if killed else 0

    def _living(self, slots: range) -> list[_Post]:
        return [post for post in self._posts if post.slot in slots and post.process is not None]


def _signal(post: _Post, number: int) -> None:
    if post.process is not None:
        post.process.send_signal(number)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[Callable[[float], None]]:
    """Call `stop` at SIGTERM and SIGINT; give a way to wait that every signal ends at once."""
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
