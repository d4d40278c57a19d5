"""Answers under a prior: the whole application in process."""

from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from service.config import Settings, SettingsError
from service.engine.loading import open_engine
from tests.service.http.v2.bodies import INFER, binary, faces_json, header
from tests.service.serving import STATED, FakeEngine, serving
from tests.service.test_api import HAPPY, assert_problem, form, sample

pytestmark = pytest.mark.anyio

EMOTIONS = STATED.emotions
# Three times as many surprised faces as happy ones: enough to turn the engine's answer around.
SURPRISE = "anger:1,disgust:1,fear:1,happiness:1,sadness:1,surprise:3,neutral:1"
SHARES = ",".join(f"{name}:{0.333333 if name == 'surprise' else 0.111111}" for name in EMOTIONS)


class DoubtfulEngine(FakeEngine):
    """Finds every face happy with 0.4, surprised with 0.35, and anything else with 0.05."""

    manifest = STATED

    def infer(self, faces: np.ndarray) -> np.ndarray:
        row = np.full(len(EMOTIONS), 0.05, np.float32)
        row[EMOTIONS.index("happiness")], row[EMOTIONS.index("surprise")] = 0.4, 0.35
        return np.tile(row, (len(faces), 1))


def expected(prior: list[float]) -> dict[str, float]:
    """Bayes' rule on the engine's answer; the manifest has one temperature, 1."""
    row = DoubtfulEngine().infer(np.zeros((1, 48, 48)))[0] * prior / np.array(STATED.prior)
    return dict(zip(EMOTIONS, (row / row.sum()).tolist(), strict=True))


PRIORS = {
    "uniform": [1.0] * 7,
    "training": list(STATED.prior or ()),
    "balanced": np.sqrt(STATED.prior or ()).tolist(),
    SURPRISE: [1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0],
}
URLS = ("/predict", "/explain", "/predict/batch")


async def ask(client: httpx.AsyncClient, url: str, **query: str) -> dict[str, Any]:
    response = await client.post(url, files=form(HAPPY), params=query)
    assert response.status_code == 200, response.text
    body = response.json()
    answer: dict[str, Any] = body["results"][0] if "results" in body else body
    return answer


def named(prior: str) -> str:
    return SHARES if prior == SURPRISE else prior


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("prior", PRIORS)
async def test_probabilities_are_under_the_prior_asked_for(prior: str, url: str) -> None:
    engine = DoubtfulEngine()
    async with serving(engine) as (client, app):
        answer = await ask(client, url, prior=prior)
        (face,) = answer["faces"]
        assert face["probabilities"] == pytest.approx(expected(PRIORS[prior]), abs=2e-6)
        assert face["confidence"] == max(face["probabilities"].values())
        assert face["probabilities"][face["emotion"]] == face["confidence"]
        assert answer["model"]["prior"] == named(prior)
        assert sample(app, "fer_faces_total", emotion=face["emotion"]) == 1
        confidence = sample(app, "fer_confidence_sum", emotion=face["emotion"])
        assert confidence == pytest.approx(face["confidence"], abs=1e-6)
    assert engine.emotions == ([face["emotion"]] if url == "/explain" else [])


async def test_what_is_explained_is_what_is_answered() -> None:
    engine = DoubtfulEngine()
    async with serving(engine) as (client, _):
        answers = [await ask(client, "/explain", prior=prior) for prior in ("training", SURPRISE)]
    assert [answer["faces"][0]["emotion"] for answer in answers] == ["happiness", "surprise"]
    assert engine.emotions == ["happiness", "surprise"]


@pytest.mark.parametrize("setting", ["auto", "uniform", "training", "balanced", SURPRISE])
async def test_the_default_is_the_settings(setting: str) -> None:
    prior = "balanced" if setting == "auto" else setting
    async with serving(DoubtfulEngine(), prior=setting) as (client, app):
        answer = await ask(client, "/predict")
        assert answer["model"]["prior"] == named(prior)
        assert answer["faces"][0]["probabilities"] == pytest.approx(
            expected(PRIORS[prior]), abs=2e-6
        )
        kind = "custom" if setting == SURPRISE else prior
        model = {"name": STATED.name, "version": STATED.version, "device": "fake", "prior": kind}
        assert sample(app, "fer_model_info", **model) == 1


async def test_requests_change_no_label() -> None:
    async with serving(DoubtfulEngine()) as (client, app):
        before = series(app)
        await ask(client, "/predict", prior="balanced")
        usual = series(app)
        await ask(client, "/predict", prior=SURPRISE)
        assert series(app) == usual > before


def series(app: FastAPI) -> set[tuple[str, ...]]:
    found = app.state.metrics.registry.collect()
    return {(s.name, *s.labels.values()) for family in found for s in family.samples}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ("even", "prior is 'even', expected uniform, training, balanced or emotion:share,..."),
        ("", "prior is '', expected uniform"),
        ("auto", "prior is 'auto', expected uniform"),
        ("anger:1", "a share for each of anger, disgust, fear"),
        (SURPRISE.replace("surprise:3", "surprise:x"), "the share 'x', expected a number from 0"),
        (SURPRISE.replace("surprise", "joy"), "a share for each of"),
        ("x" * 1000, "prior is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...', expected"),
        ("anger:1," * 5000, "a share for each of"),
    ],
)
async def test_a_prior_that_is_none_is_refused_before_the_upload_is_read(
    prior: str, said: str, url: str
) -> None:
    engine = DoubtfulEngine()
    async with serving(engine) as (client, _):
        response = await client.post(url, files=form(HAPPY), params={"prior": prior})
        assert_problem(response, 400, "bad_request")
        assert said in response.json()["detail"]
        assert len(response.json()["detail"]) < 300
        assert (await client.post(url, files=form(HAPPY))).status_code == 200


async def test_an_older_checkpoint_has_its_own_prior_alone() -> None:
    async with serving() as (client, _):
        assert (await ask(client, "/predict"))["model"]["prior"] == "training"
        assert (await ask(client, "/predict", prior="training"))["model"]["prior"] == "training"
        response = await client.post("/predict?prior=uniform", files=form(HAPPY))
        assert_problem(response, 400, "bad_request")
        assert "does not state its labels' prior" in response.json()["detail"]


async def test_the_figure_is_drawn_under_any_prior() -> None:
    engine = DoubtfulEngine()
    async with serving(engine) as (client, _):
        response = await client.post(
            "/explain", files=form(HAPPY), params={"prior": SURPRISE},
            headers={"accept": "image/png"},
        )  # fmt: skip
    assert Image.open(BytesIO(response.content)).format == "PNG"
    assert engine.emotions == ["surprise"]


async def test_the_protocol_has_it_as_a_request_parameter() -> None:
    async with serving(DoubtfulEngine()) as (client, _):
        for prior, shares in PRIORS.items():
            body = faces_json(9, 200) | {"parameters": {"prior": prior}}
            answer = (await client.post(INFER, json=body)).json()
            assert answer["parameters"]["prior"] == named(prior)
            probabilities = next(o for o in answer["outputs"] if o["name"] == "probabilities")
            once = list(expected(shares).values())
            assert probabilities["data"] == pytest.approx(once * 2, abs=2e-6)
        answer = (await client.post(INFER, json=faces_json(9))).json()
        assert answer["parameters"]["prior"] == "balanced"
        described = (await client.get(INFER.removesuffix("/infer"))).json()
        assert described["parameters"]["prior"] == "balanced"


async def test_the_protocols_pictures_have_it_too() -> None:
    body = binary(
        "image", "BYTES", [1], len(HAPPY).to_bytes(4, "little") + HAPPY,
        parameters={"prior": SURPRISE}, outputs=[{"name": "emotion"}],
    )  # fmt: skip
    async with serving(DoubtfulEngine()) as (client, _):
        answer = (await client.post(INFER, content=body, headers=header(body))).json()
    assert answer["outputs"][0]["data"] == ["surprise"]
    assert answer["parameters"]["prior"] == SHARES


@pytest.mark.parametrize("prior", ["even", "", 1, ["uniform"]])
async def test_the_protocol_refuses_what_is_none(prior: object) -> None:
    body = faces_json(9) | {"parameters": {"prior": prior}}
    async with serving(DoubtfulEngine()) as (client, _):
        response = await client.post(INFER, json=body)
    assert response.status_code == 400
    assert "prior" in response.json()["error"]


# The start.


async def test_a_setting_that_does_not_fit_the_checkpoint_ends_the_start(
    random_checkpoint: Path,
) -> None:
    settings = Settings(checkpoint=random_checkpoint, prior="balanced", device="cpu")
    with pytest.raises(SettingsError, match="FER_PRIOR is 'balanced', but attention-fer-test 0"):
        open_engine(settings)
    with pytest.raises(SettingsError, match="FER_PRIOR"):
        async with serving(FakeEngine(), prior="uniform"):
            pass
