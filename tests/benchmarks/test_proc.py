import os
import subprocess
import sys
import time

import pytest

from benchmarks.serving import proc

LINE = (
    "812 (a (strange) name) S 7 812 812 0 -1 4194560 100 0 0 0 "
    "250 50 30 20 20 0 4 0 123456 1000 200 18446744073709551615"
)


def test_a_stat_line_is_read_past_a_name_with_blanks_and_parentheses() -> None:
    stat = proc.read_stat(LINE)

    assert (stat.pid, stat.parent, stat.state, stat.started) == (812, 7, "S", 123456)
    assert stat.cpu_s == pytest.approx((250 + 50 + 30 + 20) / proc.TICKS_PER_S)


def test_a_tree_has_all_descendants_and_no_zombies() -> None:
    def process(pid: int, parent: int, state: str = "S") -> proc.Stat:
        return proc.Stat(pid, parent, state, 0.0, 0)

    found = [process(2, 1), process(3, 2), process(4, 3), process(5, 2, "Z"), process(9, 1)]

    assert {s.pid for s in proc.tree([2], {s.pid: s for s in found})} == {2, 3, 4}


def test_a_tree_keeps_descendants_of_a_root_that_ended() -> None:
    child = proc.Stat(3, 2, "S", 0.0, 0)

    assert proc.tree([2], {3: child}) == [child]


def test_own_cpu_time_is_found_in_proc() -> None:
    before = time.process_time()
    while time.process_time() - before < 0.05:
        pass
    stat = proc.all_processes()[os.getpid()]

    assert stat.cpu_s >= time.process_time() - 0.05 - 2 / proc.TICKS_PER_S


def test_a_child_is_in_the_tree_while_it_lives() -> None:
    command = [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        living = {s.pid for s in proc.tree([os.getpid()], proc.all_processes())}
        memory = proc.pss_mb([child.pid])
        child.communicate()

    assert child.pid in living
    assert memory > 1
    assert child.pid not in proc.all_processes()


def test_pss_is_read_from_a_rollup() -> None:
    text = (
        "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:  4321 kB\nPss_Dirty: 1 kB\n"
    )

    assert proc.read_pss_kb(text) == 4321
    assert proc.read_pss_kb("") == 0
