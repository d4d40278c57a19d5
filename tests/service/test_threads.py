"""Threads that compute stand back for the event loop."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.threads import start_computing


def test_a_thread_that_computes_is_a_named_daemon_and_ends_with_its_work() -> None:
    seen: list[threading.Thread] = []
    thread = start_computing(lambda: seen.append(threading.current_thread()), "decode-7")
    thread.join(5)
    assert seen == [thread]
    assert (thread.name, thread.daemon, thread.is_alive()) == ("decode-7", True, False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has batch scheduling")
def test_it_interrupts_nobody_and_its_starter_is_as_before() -> None:
    before, seen = os.sched_getscheduler(0), list[int]()
    start_computing(lambda: seen.append(os.sched_getscheduler(0)), "decode").join(5)
    assert seen == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == before


def test_it_computes_where_the_scheduler_may_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    seen: list[int] = []
    start_computing(lambda: seen.append(1), "decode").join(5)
    assert seen == [1]


# A process whose thread is in torch's C++ code as the main thread ends; nobody else's threads.
_ENDS = """
import os, sys, threading, torch
from service.threads import all_have_ended, start_computing

begun = threading.Event()

def work():
    convolve = torch.nn.Conv2d(16, 16, 3)
    faces = torch.zeros(4, 16, 64, 64)
    begun.set()
    for _ in range(int(sys.argv[1])):
        convolve(faces)

start_computing(lambda: None, "at once")
assert all_have_ended(30)
start_computing(work, "decode")
begun.wait()
if not all_have_ended(float(sys.argv[2])):
    print("left")
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("batches", "within_s", "said"), [(20, 30.0, ""), (100_000_000, 0.05, "left\n")]
)
def test_no_thread_is_in_c_code_as_the_process_ends(
    batches: int, within_s: float, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDS, str(batches), str(within_s)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


ENDS = """
import sys, threading
from service.threads import run_and_exit
class Never(threading.Thread):
    def run(self): threading.Event().wait()
def main():
    Never().start()  # not a daemon: finalising the interpreter would wait for it
    sys.stdout.write("the last word")
    {end}
run_and_exit(main)
"""


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(0)", 0), ("sys.exit(2)", 2), ("sys.exit()", 0)]
)
def test_a_process_ends_whatever_its_threads_do(end: str, code: int) -> None:
    script = [sys.executable, "-c", ENDS.format(end=end)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (code, "the last word")
