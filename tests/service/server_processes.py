"""The real server in processes of its own, watched through its log."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
READY = r"ready at http://127\.0\.0\.1:(\d+): \S+ \S+ on \w+"
ALL_READY = r"all \d+ workers are ready at http://127\.0\.0\.1:(\d+)"


class Server:
    """A server that started; its log is read all along, so that it never waits for us."""

    def __init__(
        self,
        environ: Mapping[str, str],
        module: str = "service",
        ready: str = READY,
        **popen: object,
    ) -> None:
        defaults = {"FER_HOST": "127.0.0.1", "FER_PORT": "0", "FER_DEVICE": "cpu"}
        defaults |= {"FER_TIMEOUT_S": "60", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        defaults |= {"FER_WORKERS": "1"}
        others = {key: value for key, value in os.environ.items() if not key.startswith("FER_")}
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=REPOSITORY,
            env=others | defaults | dict(environ),
            stderr=subprocess.PIPE,
            text=True,
            **popen,  # type: ignore[call-overload]
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(ready)[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until the log has said something, so many times."""

        def found() -> list[re.Match[str]]:
            return [match for line in self.lines if (match := re.search(pattern, line))]

        with self._more:
            self._more.wait_for(lambda: len(found()) >= times or self._ended, PATIENCE_S)
            matches = found()
        if len(matches) < times:
            self.kill()
            raise AssertionError(f"the log never said {pattern!r}:\n{self.log}")
        return matches[-1]

    def stop(self, timeout_s: float = 30.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def sample(self, metric: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        return total(text, metric, **labels)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        self.process.stderr.close()
        with self._more:
            self._ended = True
            self._more.notify_all()


def only_line(standard_error: str) -> str:
    """Return the line that says why a start failed; it is the last one, and no event of the log."""
    *others, line = standard_error.splitlines()
    assert all(" INFO " in other for other in others), standard_error
    return line


@contextmanager
def running(environ: Mapping[str, str], *args: str, **options: object) -> Iterator[Server]:
    """Start a server, and leave none behind."""
    server = Server(environ, *args, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.kill()


def total(text: str, metric: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels, in a scrape's text."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


def ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health/ready", timeout=60).status_code == 200
    except httpx.TransportError:
        return False
