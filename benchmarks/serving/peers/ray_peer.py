"""Ray Serve: FastAPI as its ingress, `serve.batch` around the model."""

import os
from typing import Any

import ray
from fastapi import FastAPI, Request, UploadFile
from ray import serve

from benchmarks.serving.peers.model import ENGINE, MAX_BATCH, PORT, WORKERS, open_model

app = FastAPI()


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=2 * MAX_BATCH)
@serve.ingress(app)
class Recognise:
    """A replica."""

    def __init__(self) -> None:
        self.model = open_model()

    @app.post("/predict")
    async def predict(self, image: UploadFile) -> dict[str, Any]:
        """Take a form."""
        return await self.recognise(await image.read())

    @app.post("/predict/raw")
    async def predict_raw(self, request: Request) -> dict[str, Any]:
        """Take a raw body."""
        return await self.recognise(await request.body())

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.01)
    async def recognise(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.model.answer([self.model.find(data) for data in pictures])


if __name__ == "__main__":
    handed = ("DETECT", "OMP_NUM_THREADS", "PYTHONPATH")
    environ = {"ENGINE": ENGINE} | {name: os.environ[name] for name in handed}
    ray.init(
        num_cpus=max(WORKERS, 2),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environ},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Recognise.bind(), blocking=True)  # type: ignore[attr-defined]
