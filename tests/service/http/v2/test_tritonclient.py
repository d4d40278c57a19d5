"""The protocol spoken by a client that is not ours: NVIDIA's tritonclient, over a real socket."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from service.config import detector_path
from tests.service.made_pictures import encoded, flat, ramp
from tests.service.serving import listening
from training.model.labels import FER2013_EMOTIONS

if TYPE_CHECKING:
    from tritonclient.http import InferenceServerClient, InferInput

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

MODEL = "attention-fer"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator["InferenceServerClient"]:
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        yield client


def faces(*levels: int, binary: bool = True) -> "InferInput":
    pixels = np.repeat(np.array(levels, np.uint8), 48 * 48).reshape(-1, 48, 48)
    tensor = triton.InferInput("faces", pixels.shape, "UINT8")
    return tensor.set_data_from_numpy(pixels, binary_data=binary)


def image(*pictures: bytes) -> "InferInput":
    tensor = triton.InferInput("image", [len(pictures)], "BYTES")
    return tensor.set_data_from_numpy(np.array(pictures, np.object_))


def test_readiness(client: "InferenceServerClient") -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("another")


def test_metadata(client: "InferenceServerClient") -> None:
    assert client.get_server_metadata()["name"] == MODEL
    metadata = client.get_model_metadata(MODEL, "1")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["faces", "image"]
    assert metadata["parameters"]["emotions"].split(",") == list(FER2013_EMOTIONS)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_pixels(client: "InferenceServerClient", binary: bool, compression: str | None) -> None:
    answer = client.infer(
        MODEL,
        [faces(10, 130, 250, binary=binary)],
        request_id="mine",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert answer.get_response()["id"] == "mine"
    assert answer.as_numpy("emotion").tolist() == [b"anger", b"happiness", b"neutral"]
    probabilities = answer.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    assert probabilities.argmax(1).tolist() == [0, 3, 6]
    assert answer.as_numpy("box").tolist() == [[0, 0, 48, 48]] * 3
    assert answer.as_numpy("image_index").tolist() == [0, 1, 2]


def test_pictures_get_the_answers_of_predict(client: "InferenceServerClient", url: str) -> None:
    pictures = [encoded(ramp(90, 100), "JPEG"), flat(250), flat(10, 48)]
    answer = client.infer(MODEL, [image(*pictures)], model_version="1")
    alone = [httpx.post(f"{url}/predict", content=p).json()["faces"] for p in pictures]
    expected = [(index, face) for index, found in enumerate(alone) for face in found]
    assert answer.as_numpy("image_index").tolist() == [index for index, _ in expected]
    assert [e.decode() for e in answer.as_numpy("emotion")] == [f["emotion"] for _, f in expected]
    assert answer.as_numpy("box").tolist() == [list(f["box"].values()) for _, f in expected]
    values = np.array([list(f["probabilities"].values()) for _, f in expected], np.float32)
    assert (answer.as_numpy("probabilities") == values).all()


@pytest.mark.skipif(not detector_path().exists(), reason="the face detector is not in the cache")
def test_photographs_with_several_faces_and_none() -> None:
    with (
        listening(detector=detector_path()) as url,
        triton.InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        check_photographs(client, url)


def check_photographs(client: "InferenceServerClient", url: str) -> None:
    portrait = Image.fromarray(astronaut())
    two = Image.new("RGB", (1024, 512))
    two.paste(portrait)
    two.paste(portrait, (512, 0))
    pictures = [encoded(picture, "PNG") for picture in (two, ramp(300, 200), portrait)]
    answer = client.infer(MODEL, [image(*pictures)])
    assert answer.as_numpy("image_index").tolist() == [0, 0, 2]
    alone = [httpx.post(f"{url}/predict", content=p).json()["faces"] for p in pictures]
    boxes = [list(face["box"].values()) for found in alone for face in found]
    assert answer.as_numpy("box").tolist() == boxes
    largest = client.infer(MODEL, [image(pictures[0])], parameters={"max_faces": 1})
    assert largest.as_numpy("box").tolist() == boxes[:1]
    whole = client.infer(MODEL, [image(pictures[0])], parameters={"detect": "never"})
    assert whole.as_numpy("box").tolist() == [[0, 0, 1024, 512]]
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput(n, binary) for n in ("probabilities", "emotion")]
        none = client.infer(MODEL, [image(pictures[1])], outputs=outputs)
        assert none.as_numpy("probabilities").shape == (0, len(FER2013_EMOTIONS))
        assert none.as_numpy("emotion").shape == (0,)


def test_outputs_as_asked_for(client: "InferenceServerClient") -> None:
    outputs = [
        triton.InferRequestedOutput("emotion", binary_data=False),
        triton.InferRequestedOutput("probabilities", class_count=2),
    ]
    answer = client.infer(MODEL, [faces(130)], outputs=outputs)
    assert answer.get_output("emotion")["data"] == ["happiness"]
    assert answer.as_numpy("probabilities").tolist() == [
        [b"0.760000:3:happiness", b"0.040000:0:anger"]
    ]
    assert answer.as_numpy("box") is None


def test_several_at_once(client: "InferenceServerClient") -> None:
    levels = [10, 50, 80, 130, 160, 200, 250] * 3
    waiting = [client.async_infer(MODEL, [faces(level)]) for level in levels]
    emotions = [pending.get_result().as_numpy("emotion").item().decode() for pending in waiting]
    assert emotions == [FER2013_EMOTIONS[level // 37] for level in levels]


def test_errors_are_understood(client: "InferenceServerClient") -> None:
    wrong = [
        ([image(flat(130), b"no picture")], "400", "element 1: "),
        ([triton.InferInput("faces", [1, 48, 48], "UINT8")], "400", "binary_data_size"),
        ([faces(1), image(flat(1))], "400", "one input"),
        ([faces(*[1] * 257)], "413", "At most 256"),
    ]
    for inputs, status, said in wrong:
        with pytest.raises(triton.InferenceServerException, match=said) as caught:
            client.infer(MODEL, inputs)
        assert caught.value.status() == status
    with pytest.raises(triton.InferenceServerException, match="the model is 'attention-fer'"):
        client.infer("another", [faces(1)])


def test_keys() -> None:
    key = "0123456789abcdef"
    with (
        listening(api_keys=(key,)) as url,
        triton.InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        with pytest.raises(triton.InferenceServerException, match="Send a key"):
            client.infer(MODEL, [faces(130)])
        answer = client.infer(MODEL, [faces(130)], headers={"X-API-Key": key})
        assert answer.as_numpy("emotion").item() == b"happiness"
