"""A long while of good, bad and abandoned requests: `python -m tests.service.soak --minutes 20`.

Prints memory, threads and descriptors of the server each minute, and ends with 1 where a request
was lost or one of them grew between the second minute (of less than 20 minutes: a tenth) and the
end.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.service.hostile import seeds, spoiled
from tests.service.server.test_supervisor import make_checkpoint, workers_of
from tests.service.server_processes import ALL_READY, READY, Server, running

CLIENTS = 8
MAX_GROWTH_BYTES = 16 << 20
MAX_MORE_DESCRIPTORS = 8
DOCUMENTED = {200, 400, 413, 415}


@dataclass(frozen=True)
class Usage:
    """What all processes that serve hold."""

    resident_bytes: int
    threads: int
    descriptors: int

    def __str__(self) -> str:
        return (
            f"{self.resident_bytes / 2**20:.1f} MiB, {self.threads} threads, "
            f"{self.descriptors} descriptors"
        )


@dataclass
class Report:
    """What became of the requests, and what the server held early and at the end."""

    sent: int = 0
    abandoned: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    early: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    late: Usage = field(default_factory=lambda: Usage(0, 0, 0))

    @property
    def lost(self) -> int:
        return self.sent - self.abandoned - sum(self.answers.values())

    def complaints(self) -> list[str]:
        found = []
        if self.lost:
            found.append(f"{self.lost} requests were lost")
        if odd := [key for key in self.answers if int(key) not in DOCUMENTED]:
            found.append(f"answers of status {', '.join(odd)}")
        if self.late.resident_bytes > self.early.resident_bytes + MAX_GROWTH_BYTES:
            found.append("memory grew")
        if self.late.threads > self.early.threads:
            found.append("threads grew")
        if self.late.descriptors > self.early.descriptors + MAX_MORE_DESCRIPTORS:
            found.append("descriptors grew")
        return found


class Soak:
    """Clients that go on until the time is up."""

    def __init__(self, server: Server, seconds: float, say: Callable[[str], object]) -> None:
        self._server, self._seconds, self._say = server, seconds, say
        self._files = seeds()
        self._all = [data for files in self._files.values() for data in files]
        self._report = Report()
        self._processes = [server.process.pid, *workers_of(server).values()]

    async def run(self) -> Report:
        report, began = self._report, time.monotonic()
        end = began + self._seconds
        tasks = [asyncio.create_task(self._client(number, end)) for number in range(CLIENTS)]
        # By then pictures of most sizes were looked at: oneDNN keeps what it prepared for each, up
        # to a number of them, and memory is flat only when it has.
        early = began + min(120.0, self._seconds * 2 / 3)
        await asyncio.sleep(early - time.monotonic())
        report.early = await self._settled()
        self._say(f"early: {report.early}")
        while (left := end - time.monotonic()) > 60:
            await asyncio.sleep(60)
            self._say(f"{left / 60 - 1:.0f} minutes left: {self._usage()}, {report.sent} sent")
        await asyncio.gather(*tasks)
        report.late = await self._settled()
        return report

    async def _settled(self) -> Usage:
        """Leave out what the clients' own connections make of it from moment to moment."""
        found = []
        for _ in range(20):
            found.append(self._usage())
            await asyncio.sleep(0.05)
        return Usage(*(min(getattr(u, key) for u in found) for key in Usage.__annotations__))

    def _usage(self) -> Usage:
        statuses = [Path(f"/proc/{process}/status").read_text() for process in self._processes]
        fields = [
            dict(row.split(":\t", 1) for row in s.splitlines() if ":\t" in row) for s in statuses
        ]
        return Usage(
            sum(int(f["VmRSS"].split()[0]) * 1024 for f in fields),
            sum(int(f["Threads"]) for f in fields),
            sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in self._processes),
        )

    async def _client(self, number: int, end: float) -> None:
        chance = random.Random(number)
        async with httpx.AsyncClient(base_url=self._server.url, timeout=60) as http:
            while time.monotonic() < end:
                await self._once(http, chance)

    async def _once(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        data = chance.choice(self._all)
        self._report.sent += 1
        kind = chance.random()
        if kind < 0.15:
            await self._abandon(data, chance)
            return
        if kind < 0.4:
            data = spoiled(data, self._all, chance)
        if kind < 0.9:
            response = await http.post("/predict", content=data)
        else:
            files = [("image", ("a", data)), ("image", ("b", chance.choice(self._all)))]
            response = await http.post("/predict/batch", files=files)
        self._report.answers[str(response.status_code)] += 1

    async def _abandon(self, data: bytes, chance: random.Random) -> None:
        """Leave in the middle of the upload, or of the wait."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
        whole = head.encode() + data
        writer.write(whole[: chance.choice((10, len(head) + 10, len(whole)))])
        await writer.drain()
        await asyncio.sleep(chance.choice((0.0, 0.002)))
        writer.transport.abort()
        self._report.abandoned += 1


def soak(minutes: float, workers: int, say: Callable[[str], object]) -> Report:
    """Start a server, soak it, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "random.safetensors")
        environ = {"FER_CHECKPOINT": str(checkpoint), "FER_WORKERS": str(workers)}
        with running(environ, ready=ALL_READY if workers > 1 else READY) as server:
            report = asyncio.run(Soak(server, 60 * minutes, say).run())
            assert server.stop() == 0
            assert "Traceback" not in server.log, server.log[-5000:]
    say(f"late: {report.late}")
    say(
        f"sent {report.sent}, answered {dict(report.answers)}, abandoned {report.abandoned}, "
        f"lost {report.lost}"
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    report = soak(options.minutes, options.workers, lambda line: sys.stdout.write(line + "\n"))
    sys.exit("; ".join(report.complaints()) or 0)


if __name__ == "__main__":
    main()
