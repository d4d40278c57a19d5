"""FastAPI before a greedy queue: whatever waits when the model is free becomes a batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.concurrency import run_in_threadpool

from benchmarks.serving.peers.model import MAX_BATCH, PORT, WORKERS, Found, open_model


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(work())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)
if __name__ != "__main__":  # in a worker
    model = open_model()
waiting: asyncio.Queue[tuple[Found, asyncio.Future]] = asyncio.Queue()


@app.post("/predict")
async def predict(image: UploadFile) -> dict[str, Any]:
    return await recognise(await image.read())


@app.post("/predict/raw")
async def predict_raw(request: Request) -> dict[str, Any]:
    return await recognise(await request.body())


async def recognise(data: bytes) -> dict[str, Any]:
    found = await run_in_threadpool(model.find, data)
    future = asyncio.get_running_loop().create_future()
    waiting.put_nowait((found, future))
    return await future


async def work() -> None:
    while True:
        batch = [await waiting.get()]
        while len(batch) < MAX_BATCH and not waiting.empty():
            batch.append(waiting.get_nowait())
        answers = await asyncio.to_thread(model.answer, [found for found, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving.peers.fastapi_batcher:app",
        port=PORT,
        workers=WORKERS,
        access_log=False,
        timeout_worker_healthcheck=60,  # else it kills workers that are still importing torch
    )
