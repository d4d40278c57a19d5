"""Photographs with several faces and none, through the whole service."""

from io import BytesIO

import pytest
from PIL import Image

from service.config import detector_path
from tests.service.collages import Placed, collage, landscape
from tests.service.serving import serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not detector_path().is_file(), reason="no face detector was fetched"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def form(picture: Image.Image) -> dict[str, tuple[str, bytes, str]]:
    file = BytesIO()
    picture.save(file, "JPEG")
    return {"image": ("photograph.jpg", file.getvalue(), "image/jpeg")}


async def test_every_face_is_answered_largest_first() -> None:
    picture = collage(Placed(300, 400, 220), Placed(760, 300, 90))
    async with serving(detector=detector_path()) as (client, _):
        body = (await client.post("/predict", files=form(picture))).json()
        limited = (await client.post("/predict?max_faces=1", files=form(picture))).json()
        batched = (await client.post("/predict/batch?max_faces=1", files=form(picture))).json()
    assert body["image"] == {"width": 1024, "height": 768}
    assert [face["box"]["x"] + face["box"]["width"] > 200 for face in body["faces"]] == [True] * 2
    widths = [face["box"]["width"] for face in body["faces"]]
    assert widths[0] > 1.5 * widths[1]
    assert all(0.7 <= face["detection"] <= 1.0 for face in body["faces"])
    assert limited["faces"] == body["faces"][:1]
    assert batched["results"][0]["faces"] == body["faces"][:1]


async def test_a_picture_without_a_face_is_answered_and_counted() -> None:
    async with serving(detector=detector_path()) as (client, _):
        response = await client.post("/predict", files=form(landscape(640, 480)))
        shown = (await client.get("/metrics")).text
    assert response.status_code == 200
    assert response.json()["faces"] == []
    assert "fer_faceless_images_total 1.0" in shown


@pytest.mark.parametrize(
    ("query", "said"),
    [("detect=sometimes", "detect is none of"), ("max_faces=0", "max_faces is not")],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_a_wrong_query_is_named(path: str, query: str, said: str) -> None:
    async with serving(detector=detector_path()) as (client, _):
        response = await client.post(f"{path}?{query}", files=form(landscape(64, 64)))
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert said in response.json()["detail"]
