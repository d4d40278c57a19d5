"""Tests of `service.server.engine_process`: real workers before a shared engine.

The supervisor's and the workers' own tests are in `test_supervisor`.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.made_pictures import flat
from tests.service.server.test_supervisor import (
    NO_DETECTOR,
    WORKERS,
    alive,
    folder_of,
    make_checkpoint,
    post_many,
    settings,
    workers_of,
)
from tests.service.server_processes import ALL_READY, Server, ready, running
from tests.waiting import eventually
from training.model.labels import FER2013_EMOTIONS

pytestmark = pytest.mark.anyio

ENGINE = WORKERS  # its slot


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "random.safetensors")


@pytest.fixture(scope="module")
def apart(checkpoint: Path) -> Iterator[Server]:
    environ = settings(checkpoint) | {"FER_ENGINE": "shared"}
    with running(environ, ready=ALL_READY) as server:
        yield server
        folder = folder_of(server)
        assert server.stop() == 0
        assert not folder.exists()
        assert "Traceback" not in server.log


async def answers_to(server: Server, content: bytes, path: str = "/predict") -> dict[str, object]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        response = await client.post(path, content=content)
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    del body["timing"]
    return body


async def test_answers_are_those_of_an_engine_inside(apart: Server, checkpoint: Path) -> None:
    only_fear = ",".join(f"{name}:{int(name == 'fear')}" for name in FER2013_EMOTIONS)
    paths = "/predict", "/explain", "/explain?prior=uniform", f"/explain?prior={only_fear}"
    asked = [(path, flat(level)) for path in paths for level in (0, 60, 200)]
    got = [await answers_to(apart, content, path) for path, content in asked]
    with running({"FER_CHECKPOINT": str(checkpoint)} | NO_DETECTOR) as inside:
        for (path, content), answer in zip(asked, got, strict=True):
            assert answer == await answers_to(inside, content, path)


async def test_one_queue_bounds_and_one_engine_counts_for_all_workers(apart: Server) -> None:
    before = apart.sample("fer_faces_total"), apart.sample("fer_batch_faces_sum")
    assert await post_many(apart, 100) == 100
    assert apart.sample("fer_faces_total") == before[0] + 100
    assert apart.sample("fer_batch_faces_sum") == before[1] + 100
    assert apart.sample("fer_queue_limit_faces") == 1024
    assert apart.sample("fer_queue_faces") == 0
    assert apart.sample("fer_workers") == WORKERS
    assert apart.sample("process_resident_memory_bytes", worker="engine-0") > 0
    eventually(lambda: apart.sample("fer_workers_ready") == WORKERS)


def test_its_files_are_nobody_elses(apart: Server) -> None:
    folder = folder_of(apart)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())


@pytest.mark.slow
async def test_a_killed_engine_is_replaced_and_costs_only_whom_it_had(apart: Server) -> None:
    eventually(lambda: ready(apart))
    processes = workers_of(apart)
    replaced = asyncio.Event()
    statuses: list[int] = []

    async def ask(client: httpx.AsyncClient) -> None:
        while not replaced.is_set():
            response = await client.post("/predict", content=flat(9))
            statuses.append(response.status_code)
            if response.status_code != 200:
                assert response.status_code == 503
                assert response.json()["code"] == "not_ready"
                assert int(response.headers["retry-after"]) >= 1
                with contextlib.suppress(TimeoutError):  # as a client that was told to wait
                    await asyncio.wait_for(replaced.wait(), 0.05)

    def kill_and_await_another() -> None:
        eventually(lambda: 200 in statuses)
        os.kill(processes[ENGINE], signal.SIGKILL)
        eventually(lambda: 503 in statuses)
        eventually(lambda: workers_of(apart).get(ENGINE) not in (None, processes[ENGINE]))
        eventually(lambda: ready(apart))
        seen = len(statuses)
        eventually(lambda: 200 in statuses[seen:])

    async with (
        httpx.AsyncClient(base_url=apart.url, timeout=60) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(8):
            group.create_task(ask(client))
        await asyncio.to_thread(kill_and_await_another)
        replaced.set()
    apart.wait_for(r"engine 0 ended with -9; starts again in 0 s")
    workers = {slot: process for slot, process in workers_of(apart).items() if slot != ENGINE}
    assert workers == {slot: processes[slot] for slot in workers}, "a worker died with it"
    assert await post_many(apart, 50) == 50


async def test_a_killed_worker_is_replaced_and_reaches_the_same_engine(apart: Server) -> None:
    eventually(lambda: apart.sample("fer_workers_ready") == WORKERS)
    before = workers_of(apart)
    os.kill(before[0], signal.SIGKILL)
    apart.wait_for(r"worker 0 ended with -9; starts again in 0 s")
    assert await post_many(apart, 30, clients=3) == 30
    eventually(lambda: apart.sample("fer_workers_ready") == WORKERS)
    after = workers_of(apart)
    assert after[0] != before[0]
    assert after[ENGINE] == before[ENGINE]
    assert await post_many(apart, 50) == 50


@pytest.mark.slow
async def test_a_drain_answers_all_that_was_accepted() -> None:
    requests = 8
    pictures = [("image", (f"{n}.png", flat(n), "image/png")) for n in range(32)]
    # The shipped checkpoint, a face at a time: seconds of work.
    environ = {"FER_WORKERS": str(WORKERS), "FER_ENGINE": "shared", "FER_MAX_BATCH": "1"}
    environ["FER_TIMEOUT_S"] = "60"  # a slow machine would rightly refuse some of them
    with running(environ | NO_DETECTOR, ready=ALL_READY) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            asked = [
                asyncio.create_task(client.post("/predict/batch", files=pictures))
                for _ in range(requests)
            ]
            # Each has come as far as the engine, or to a worker that is reading it.
            await asyncio.to_thread(
                lambda: (
                    server.sample("fer_connections") > requests
                    and server.sample("fer_queue_faces") > 20
                ),
            )
            server.process.send_signal(signal.SIGTERM)
            responses = await asyncio.gather(*asked)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert [response.status_code for response in responses] == [200] * requests
    results = [result for response in responses for result in response.json()["results"]]
    assert all(len(result["faces"]) == 1 for result in results)
    assert len(results) == requests * len(pictures)


@pytest.mark.slow
def test_engine_and_workers_end_with_their_supervisor(checkpoint: Path) -> None:
    with running(settings(checkpoint) | {"FER_ENGINE": "shared"}, ready=ALL_READY) as server:
        processes, folder = workers_of(server), folder_of(server)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not any(map(alive, processes.values())))
        eventually(lambda: not folder.exists())
