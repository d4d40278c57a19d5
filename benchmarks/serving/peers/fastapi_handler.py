"""FastAPI with the model in the handler: a plain `def`, which FastAPI runs in its threads."""

from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, UploadFile

from benchmarks.serving.peers.model import PORT, WORKERS, open_model

app = FastAPI()
if __name__ != "__main__":  # in a worker
    model = open_model()


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, Any]:
    return recognise(image.file.read())


@app.post("/predict/raw")
def predict_raw(image: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
    return recognise(image)


def recognise(data: bytes) -> dict[str, Any]:
    return model.answer([model.find(data)])[0]


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving.peers.fastapi_handler:app",
        port=PORT,
        workers=WORKERS,
        access_log=False,
        timeout_worker_healthcheck=60,  # else it kills workers that are still importing torch
    )
