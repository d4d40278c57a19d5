"""Threads that compute stand back for the event loop."""

import os
import sys
import threading

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
