import base64
import inspect
import io
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import AsyncClient, Client, Explanation, Failure

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]

FACE = {
    "box": {"x": 1, "y": 2, "width": 3, "height": 4},
    "detection": 0.97,
    "emotion": "happiness",
    "confidence": 0.9,
    "probabilities": {"happiness": 0.9, "anger": 0.1},
}
BODY: dict[str, Any] = {
    "faces": [FACE],
    "image": {"width": 10, "height": 20},
    "model": {"name": "m", "version": "1"},
    "timing": {"total_ms": 1.5},
}
PROBLEM = {"code": "bad_image", "detail": "The image is damaged."}
Answer = httpx.Response | Exception
Ask = Callable[..., Any]


class Script:
    """Answers requests one after the other, and remembers them and the waits between them."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def failing(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask through either client, as a script answers."""

    async def run(
        script: Script,
        image: Any = b"picture",
        method: str = "predict",
        search: Mapping[str, Any] = {},
        **options: Any,
    ) -> Any:
        transport: Any = httpx.MockTransport(script)
        if request.param == "sync":
            with Client(transport=transport, sleep=script.waits.append, **options) as client:
                return getattr(client, method)(image, **search)

        async def sleep(seconds: float) -> None:
            script.waits.append(seconds)

        async with AsyncClient(transport=transport, sleep=sleep, **options) as waiting:
            return await getattr(waiting, method)(image, **search)

    return run


async def test_an_answer_is_typed(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "face.jpg"
    file.write_bytes(b"bytes of a file")
    script = Script(httpx.Response(200, json=BODY))
    prediction = await ask(script, file)
    assert prediction.faces[0].emotion == "happiness"
    assert prediction.faces[0].box.height == 4
    assert prediction.faces[0].detection == 0.97
    assert (prediction.width, prediction.height) == (10, 20)
    assert script.requests[0].content == b"bytes of a file"
    assert script.requests[0].url.query == b""  # the service's defaults
    assert script.requests[0].headers["content-type"] == "application/octet-stream"


async def test_a_picture_in_each_form(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "face.jpg"
    file.write_bytes(b"bytes of a file")
    for image in (str(file), io.BytesIO(b"bytes of a file"), bytearray(b"bytes of a file")):
        script = Script(httpx.Response(200, json=BODY))
        await ask(script, image)
        assert script.requests[0].content == b"bytes of a file"
    for picture in (Image.new("L", (8, 6)), np.zeros((6, 8, 3), np.uint8)):
        script = Script(httpx.Response(200, json=BODY))
        await ask(script, picture)
        assert script.requests[0].content.startswith(b"\x89PNG")
    with pytest.raises(TypeError, match="a picture is a path"):
        await ask(Script(), None)


def test_importing_the_client_imports_no_library_of_pictures() -> None:
    program = "import sys, service.client; print(*{'numpy', 'PIL', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "\n")


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://localhost:port"},
        {"url": "ftp://localhost"},
        {"api_key": "clé-de-l-été-0123"},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"retries": -1},
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_not_valid_is_said_at_once(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"address|API key|timeout|retries"):
        kind(**options)


async def test_an_address_without_a_scheme(ask: Ask) -> None:
    script = Script(httpx.Response(200, json=BODY))
    await ask(script, url="fer.example:8000/prefix")
    assert str(script.requests[0].url) == "http://fer.example:8000/prefix/predict"


@pytest.mark.parametrize(
    "error",
    [
        failing(httpx.ConnectError("name"), socket.gaierror(-2, "not known")),
        failing(httpx.ConnectError("certificate"), ssl.SSLCertVerificationError()),
        httpx.UnsupportedProtocol("scheme"),
        httpx.LocalProtocolError("header"),
        httpx.DecodingError("gzip"),
    ],
    ids=lambda error: str(error),
)
async def test_what_no_retry_mends_is_final(ask: Ask, error: Exception) -> None:
    script = Script(error)
    with pytest.raises(Failure) as caught:
        await ask(script)
    assert (caught.value.code, len(script.requests), script.waits) == ("unreachable", 1, [])


async def test_no_face_is_an_answer(ask: Ask) -> None:
    prediction = await ask(Script(httpx.Response(200, json=BODY | {"faces": []})))
    assert prediction.faces == ()


async def test_how_to_look_for_faces_is_passed_on(ask: Ask) -> None:
    script = Script(httpx.Response(200, json=BODY))
    await ask(script, search={"detect": "always", "max_faces": 3, "min_face": 0.05})
    params = {"detect": "always", "max_faces": "3", "min_face": "0.05"}
    assert dict(script.requests[0].url.params) == params


@pytest.mark.parametrize("method", ["predict", "explain", "figure"])
async def test_a_prior_is_passed_on_and_what_was_used_comes_back(ask: Ask, method: str) -> None:
    body = BODY | {"faces": [], "model": BODY["model"] | {"prior": "uniform"}}
    body |= {"overlay": "data:image/png;base64,"} if method == "explain" else {}
    png = httpx.Response(200, content=b"", headers={"content-type": "image/png"})
    script = Script(png if method == "figure" else httpx.Response(200, json=body))
    answer = await ask(script, method=method, search={"prior": "anger:1,joy:0.5"})
    assert dict(script.requests[0].url.params) == {"prior": "anger:1,joy:0.5"}
    if method == "predict":
        assert answer.model["prior"] == "uniform"


async def test_an_explanation_is_typed(ask: Ask) -> None:
    def url(png: bytes) -> str:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"

    straightening = {"angle_deg": -3.0, "scale": 1.1, "shift_x": 0.0, "shift_y": 0.1}
    images = {"straightened": url(b"s"), "attention": url(b"a"), "evidence": url(b"e")}
    face = FACE | {"straightening": straightening} | images
    body = BODY | {"faces": [face], "overlay": url(b"o")}
    script = Script(httpx.Response(503), httpx.Response(200, json=body))
    explanation = await ask(script, method="explain", search={"max_faces": 1})
    assert isinstance(explanation, Explanation)
    assert explanation.prediction.faces == (explanation.faces[0].face,)
    assert explanation.faces[0].straightening == straightening
    assert explanation.faces[0].straightened == b"s"
    assert explanation.faces[0].attention == b"a"
    assert explanation.faces[0].evidence == b"e"
    assert explanation.overlay == b"o"
    request = script.requests[1]
    assert request.url.path == "/explain"
    assert request.url.params["max_faces"] == "1"
    assert request.headers["accept"] == "application/json"
    assert len(script.waits) == 1


async def test_a_figure_is_a_pictures_bytes(ask: Ask) -> None:
    png = {"content-type": "image/png"}
    script = Script(httpx.Response(200, content=b"PNG", headers=png))
    assert await ask(script, method="figure") == b"PNG"
    assert script.requests[0].url.path == "/explain"
    assert script.requests[0].headers["accept"] == "image/png"
    with pytest.raises(Failure, match="is this the right address"):
        await ask(Script(httpx.Response(200, json=BODY)), method="figure")


def test_both_clients_have_the_same_methods() -> None:
    names = {name for name in vars(Client) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in names:
        one, other = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert one == other


async def test_a_refusal_is_final(ask: Ask) -> None:
    script = Script(httpx.Response(400, json=PROBLEM))
    with pytest.raises(Failure) as caught:
        await ask(script)
    assert (caught.value.code, caught.value.status) == ("bad_image", 400)
    assert caught.value.detail == "The image is damaged."
    assert script.waits == []


async def test_a_full_service_is_asked_again_when_it_says(ask: Ask) -> None:
    full = {"code": "queue_full", "detail": "Try again later."}
    script = Script(
        httpx.Response(503, json=full, headers={"retry-after": "3"}),
        httpx.Response(503, json=full, headers={b"retry-after": b"\xb2"}),
        httpx.Response(503, json=full, headers={"retry-after": "100000"}),
        httpx.Response(200, json=BODY),
    )
    assert (await ask(script)).faces
    assert script.waits == [3.0, 1.0, 60.0]


async def test_a_broken_connection_is_tried_again_ever_more_slowly(ask: Ask) -> None:
    script = Script(
        httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.Response(200, json=BODY)
    )
    assert (await ask(script)).faces
    assert script.waits == [0.25, 0.5]


async def test_it_gives_up_after_its_retries(ask: Ask) -> None:
    script = Script(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(Failure, match="no answer: refused") as caught:
        await ask(script, retries=2)
    assert caught.value.code == "unreachable"
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, "<html>"),
        (200, '{"ok": true}'),
        (200, '{"faces": 3}'),
        (502, "Bad Gateway"),
        (404, '["what"]'),
    ],
)
async def test_another_server_is_told(ask: Ask, status: int, text: str) -> None:
    with pytest.raises(Failure, match="is this the right address") as caught:
        await ask(Script(httpx.Response(status, text=text)))
    assert caught.value.status == status


async def test_the_key_is_sent(ask: Ask) -> None:
    script = Script(httpx.Response(200, json=BODY))
    await ask(script, api_key="secret")
    assert script.requests[0].headers["x-api-key"] == "secret"
