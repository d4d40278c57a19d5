"""What a server does when things go wrong: overload, a poison picture, clients that leave, the end.

Each function takes a server that is ready and calm and returns plain figures for the JSON.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import uvloop

from benchmarks.serving.load import closed_loop
from benchmarks.serving.open_loop import Crowd, Exchange, arrivals, request_bytes
from benchmarks.serving.pictures import Body
from benchmarks.serving.server import Server
from benchmarks.serving.statistics import median, percentile

T = TypeVar("T")

# The service's own default deadline; a client that has waited so long has given up.
DEADLINE_S = 10.0
RECOVERY_LIMIT_S = 60.0
PATIENCE_S = 60.0
POISONED_GROUPS = 12


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def alone_ms(server: Server, body: Body, count: int = 10) -> float:
    """Return the median latency of requests one after the other."""
    return median([server.ask(body)[2] for _ in range(count)])


def overload(server: Server, body: Body, seconds: float, capacity_s: float) -> dict[str, Any]:
    """Send three times what the server can do, then see how soon it is well again.

    Args:
        server: Ready.
        body: What to send.
        seconds: For so long; beyond the deadline, or nothing can be late.
        capacity_s: How long to measure the capacity before, with 64 connections.
    """
    alone = alone_ms(server, body)
    capacity = closed_loop(server, body, 64, capacity_s).requests_per_s
    exchanges, well_again_s, generator_cores = run(
        _overload(server, body, 3 * capacity, seconds, alone)
    )
    return {
        "capacity_per_s": capacity,
        "offered_per_s": len(exchanges) / seconds,
        "alone_ms": alone,
        "generator_cores": generator_cores,
        "well_again_s": well_again_s,
        **summarise(exchanges, seconds),
    }


def summarise(exchanges: Sequence[Exchange], seconds: float) -> dict[str, Any]:
    """Return the figures of an overload; the first fifth of it is left out, as the queues fill."""
    began = min(e.due for e in exchanges)
    late = [e for e in exchanges if e.due - began >= 0.2 * seconds]
    good = [e for e in late if e.status == 200 and e.latency_ms <= 1e3 * DEADLINE_S]
    answered = [e.latency_ms for e in late if e.status == 200]
    rejected = [e for e in late if e.status >= 400]
    from_send = [1e3 * (e.ended - e.sent) for e in rejected]
    window = (began + 0.2 * seconds, began + seconds)
    done = [
        e
        for e in exchanges
        if e.status == 200 and window[0] <= e.ended < window[1] and e.latency_ms <= 1e3 * DEADLINE_S
    ]
    return {
        "goodput_per_s": len(done) / (window[1] - window[0]),
        "accepted_p50_ms": percentile(answered, 0.5),
        "accepted_p99_ms": percentile(answered, 0.99),
        "accepted_share": len(good) / max(1, len(late)),
        "rejected_p50_ms": percentile(from_send, 0.5),
        "rejected_p99_ms": percentile(from_send, 0.99),
        "retry_after_share": sum(bool(e.retry_after) for e in rejected) / max(1, len(rejected)),
        # How late the generator itself was: its own share of every latency above.
        "generator_late_p99_ms": percentile([1e3 * (e.sent - e.due) for e in late if e.sent], 0.99),
        "statuses": dict(Counter(str(e.status or e.failure) for e in exchanges)),
    }


async def _overload(
    server: Server, body: Body, rate: float, seconds: float, alone: float
) -> tuple[list[Exchange], float | None, float]:
    data = request_bytes(server.path(body) or "", body)
    crowd = Crowd(server.port, DEADLINE_S)
    own, began = time.process_time(), time.monotonic()
    await arrivals(crowd, data, rate, seconds)
    ended = time.monotonic()
    generator_cores = (time.process_time() - own) / (ended - began)
    # Whoever still waits keeps waiting: the server does not know that the rush is over.
    probes, limit_ms, calm = Crowd(server.port, 1.0), max(100.0, 5 * alone), 0
    well_at: float | None = None
    while calm < 3 and time.monotonic() - ended < RECOVERY_LIMIT_S:
        probe = probes.ask(data)
        await probes.settled()
        if probe.status == 200 and probe.latency_ms <= limit_ms:
            calm, well_at = calm + 1, (well_at if calm else probe.due - ended)
        else:
            calm, well_at = 0, None
            await asyncio.sleep(0.05)
    await crowd.settled()
    crowd.leave()
    probes.leave()
    return crowd.exchanges, well_at if calm == 3 else None, generator_cores


def poison(server: Server, good: Body, bad: Body) -> dict[str, Any]:
    """Send eight pictures at once, one of them broken, many times over."""

    async def groups() -> tuple[list[Exchange], list[Exchange]]:
        path = server.path(good) or ""
        data, spoilt = request_bytes(path, good), request_bytes(path, bad)
        crowd = Crowd(server.port, DEADLINE_S)
        neighbours: list[Exchange] = []
        culprits: list[Exchange] = []
        for _ in range(POISONED_GROUPS):
            for place in range(8):
                one = crowd.ask(spoilt if place == 3 else data)
                (culprits if place == 3 else neighbours).append(one)
            await crowd.settled()
        crowd.leave()
        return neighbours, culprits

    neighbours, culprits = run(groups())
    failed = sum(e.status != 200 for e in neighbours)
    return {
        "neighbours_failed_per_poison": failed / POISONED_GROUPS,
        "poison_statuses": dict(Counter(str(e.status or e.failure) for e in culprits)),
        "neighbour_statuses": dict(Counter(str(e.status or e.failure) for e in neighbours)),
        "well_after": server.ask(good)[0] == 200,
    }


def gone(server: Server, body: Body, clients: int) -> dict[str, Any]:
    """Have so many clients ask at once and leave; time the next request."""

    async def leave() -> None:
        crowd = Crowd(server.port, DEADLINE_S)
        for _ in range(clients):
            crowd.ask(request_bytes(server.path(body) or "", body))
        give_up = time.monotonic() + 5.0
        while not all(e.sent for e in crowd.exchanges) and time.monotonic() < give_up:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # for the last bytes to be read
        crowd.leave()
        await asyncio.sleep(0)

    alone = alone_ms(server, body)
    run(leave())
    status, _, next_ms = _ask(server, body)
    return {"clients": clients, "alone_ms": alone, "next_ms": next_ms, "next_status": status}


def idle(server: Server, body: Body, seconds: float) -> dict[str, Any]:
    """Leave it alone for so long, then ask once."""
    alone, before = alone_ms(server, body), server.cpu_s()
    time.sleep(seconds)
    share = (server.cpu_s() - before) / seconds
    status, _, first_ms = _ask(server, body)
    return {
        "seconds": seconds,
        "cpu_share": share,
        "alone_ms": alone,
        "first_ms": first_ms,
        "first_status": status,
    }


def sigterm(server: Server, body: Body, connections: int = 32) -> dict[str, Any]:
    """Tell the server to stop while it works: the end of this server, so it comes last."""
    exchanges, asked_at, ended_at = run(_sigterm(server, body, connections))
    orphans = _orphans(server)
    before = [e for e in exchanges if e.sent and e.sent < asked_at and e.ended > asked_at]
    after = [e for e in exchanges if e.sent >= asked_at]
    return {
        "under_way": len(before),
        "lost": sum(e.status == 0 for e in before),
        "told_no": sum(e.status >= 400 for e in before),
        "broken_later": sum(e.failure in ("broken", "timeout") for e in after),
        "exit_code": server.process.poll(),
        "exit_s": None if ended_at is None else ended_at - asked_at,
        "orphans": orphans,
    }


async def _sigterm(
    server: Server, body: Body, connections: int
) -> tuple[list[Exchange], float, float | None]:
    data = request_bytes(server.path(body) or "", body)
    crowd, stop = Crowd(server.port, DEADLINE_S), asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            exchange = crowd.ask(data)
            while not exchange.ended:
                await asyncio.sleep(0.002)
            if exchange.failure == "refused":
                return  # nobody listens any more

    async def watch() -> float | None:
        while server.process.poll() is None:
            if time.monotonic() > asked_at + PATIENCE_S:
                return None
            await asyncio.sleep(0.01)
        return time.monotonic()

    clients = [asyncio.ensure_future(client()) for _ in range(connections)]
    await asyncio.sleep(1.0)
    asked_at = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.process.pid, signal.SIGTERM)
    watcher = asyncio.ensure_future(watch())
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.wait(clients, timeout=DEADLINE_S + 1)
    await crowd.settled()
    return crowd.exchanges, asked_at, await watcher


def _orphans(server: Server) -> int:
    """Count what the server left behind, a second after it ended."""
    if server.process.poll() is None:
        return len(server.processes()) - 1
    time.sleep(1.0)
    return len(server.processes())


def _ask(server: Server, body: Body) -> tuple[int, bytes, float]:
    began = time.monotonic()
    try:
        return server.ask(body, PATIENCE_S)
    except OSError:
        return 0, b"", 1e3 * (time.monotonic() - began)
