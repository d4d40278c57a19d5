"""The package `fer` behind FastAPI: its own face detector (Haar) and its own classifier.

It has an environment of its own and imports nothing of this project.
"""

import os
import threading
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import Body, FastAPI, UploadFile
from fer.fer import FER

app = FastAPI()
if __name__ != "__main__":  # in a worker
    cv2.setNumThreads(1)
    detector = FER()
one_at_a_time = threading.Lock()  # its interpreter fails when two threads use it


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, Any]:
    return recognise(image.file.read())


@app.post("/predict/raw")
def predict_raw(image: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
    return recognise(image)


def recognise(data: bytes) -> dict[str, Any]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    with one_at_a_time:
        found = detector.detect_emotions(picture)
    return {
        "faces": [
            {
                "box": [int(value) for value in face["box"]],
                "probabilities": {name: float(value) for name, value in face["emotions"].items()},
            }
            for face in found
        ]
    }


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving.peers.fer_peer:app",
        port=int(os.environ["PORT"]),
        workers=int(os.environ["WORKERS"]),
        access_log=False,
        timeout_worker_healthcheck=60,  # else it kills workers that are still importing
    )
