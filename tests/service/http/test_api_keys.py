"""Tests of `service.http.api_keys`: keys and origins, in the application as it is served."""

import httpx
import pytest

from service.app import create_app
from service.config import Settings, SettingsError
from service.pipeline import Predictor
from tests.service.made_pictures import flat
from tests.service.serving import FakeEngine, serving

pytestmark = pytest.mark.anyio

KEYS = ("first-key-0123456789", "second-key-012345678")
PAGE = "https://page.example"


@pytest.mark.parametrize("key", KEYS)
async def test_any_key_opens_either_way(key: str) -> None:
    async with serving(api_keys=KEYS) as (client, _):
        for headers in (
            {"x-api-key": key},
            {"authorization": f"Bearer {key}"},
            {"authorization": f"bearer  {key}"},
            {"authorization": "Basic abc", "x-api-key": key},
        ):
            response = await client.post("/predict", content=flat(130), headers=headers)
            assert response.status_code == 200, headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": KEYS[0][:-1]},
        {"x-api-key": KEYS[0] + "x"},
        {"x-api-key": ",".join(KEYS)},
        {"authorization": KEYS[0]},
        {"authorization": f"Basic {KEYS[0]}"},
        {"authorization": "Bearer"},
        {"authorization": b"Bearer \xff\xfe"},
        {"cookie": f"x-api-key={KEYS[0]}"},
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/docs/x", "/openapi", "/x"])
async def test_nothing_else_does(path: str, headers: dict[str, str]) -> None:
    async with serving(api_keys=KEYS) as (client, app):
        response = await client.post(path, content=flat(130), headers=headers)
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "unauthorized"
        assert response.headers["www-authenticate"].startswith("Bearer ")
        assert response.headers["connection"] == "close"  # nothing of its body was read
        assert not any(key in response.text for key in KEYS)
        metrics = app.state.service.metrics.registry
        assert metrics.get_sample_value("fer_rejections_total", {"reason": "unauthorized"}) == 1


async def test_health_and_metrics_are_open_unless_the_operator_says_otherwise() -> None:
    paths = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics")
    async with serving(api_keys=KEYS) as (client, _):
        assert [(await client.get(path)).status_code for path in paths] == [200] * 5
        assert (await client.head("/health/ready")).status_code == 200
    async with serving(api_keys=KEYS, open_paths=()) as (client, _):
        assert [(await client.get(path)).status_code for path in paths] == [401] * 5


async def test_pages_without_data_of_users_are_always_open() -> None:
    async with serving(api_keys=KEYS, open_paths=()) as (client, _):
        for path in ("/", "/docs", "/docs/start.js", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/predict", content=b"x")).status_code == 401


async def test_a_key_is_asked_for_with_a_slash_at_the_end_too() -> None:
    async with serving(api_keys=KEYS) as (client, _):
        assert (await client.post("/predict/", content=b"x")).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/metrics//", "/metrics/", "http://test//metrics", "/metrics?x", "/METRICS", "/%6detrics"],
)
async def test_open_paths_open_no_other_ones(path: str) -> None:
    async with serving(api_keys=KEYS, open_paths=("/metrics",)) as (client, _):
        served = (await client.get("/metrics")).status_code
        status = (await client.get(path)).status_code
    # What names the same path, by its query, its escapes or a slash, is open as that is.
    assert status == (served if path in ("/metrics?x", "/%6detrics", "/metrics/") else 401)


def test_a_path_that_does_not_exist_cannot_be_open() -> None:
    with pytest.raises(SettingsError, match="FER_OPEN_PATHS has '/metric', expected some of /"):
        create_app(Settings(open_paths=("/metric",)), FakeEngine())


async def test_the_document_says_which_paths_need_a_key() -> None:
    headers = {"x-api-key": KEYS[0]}
    async with serving(api_keys=KEYS) as (client, _):
        document = (await client.get("/openapi.json", headers=headers)).json()
    assert document["components"]["securitySchemes"].keys() == {"bearer", "key"}
    predict = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"bearer": []}, {"key": []}]
    assert "application/problem+json" in predict["responses"]["401"]["content"]
    assert "security" not in document["paths"]["/metrics"]["get"]
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/predict"]["post"]["responses"]


# Pages of other origins.


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    headers["access-control-request-headers"] = (
        "x-api-key, content-type, inference-header-content-length"
    )
    return await client.options("/predict", headers=headers)


async def test_closed_by_default() -> None:
    async with serving() as (client, _):
        response = await client.get("/health/live", headers={"origin": PAGE})
        assert "access-control-allow-origin" not in response.headers
        assert (await preflight(client, PAGE)).status_code == 405


async def test_asking_first_is_counted_and_named_and_no_prediction() -> None:
    async with serving(cors_origins=(PAGE,)) as (client, app):
        answers = [await preflight(client, page) for page in (PAGE, "https://other.example")]
        counted = {
            status: app.state.metrics.registry.get_sample_value(
                "fer_requests_total",
                {"route": "preflight", "kind": "other", "method": "OPTIONS", "status": status},
            )
            for status in ("200", "400")
        }
        text = (await client.get("/metrics")).text
    assert counted == {"200": 1, "400": 1}
    assert 'route="/predict"' not in text
    names = {answer.headers["x-request-id"] for answer in answers}
    assert len(names) == 2


async def test_a_failure_can_be_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret of /the/code")

    monkeypatch.setattr(Predictor, "predict", fail)
    async with serving(cors_origins=(PAGE,)) as (client, _):
        headers = {"origin": PAGE}
        response = await client.post("/predict", content=flat(130), headers=headers)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["access-control-allow-origin"] == PAGE
    exposed = response.headers["access-control-expose-headers"]
    assert "x-request-id" in exposed
    assert response.json()["instance"].endswith(response.headers["x-request-id"])


async def test_open_to_those_named() -> None:
    async with serving(cors_origins=(PAGE,), api_keys=KEYS) as (client, _):
        allowed = await preflight(client, PAGE)  # without a key: browsers send none with it
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "x-api-key" in allowed.headers["access-control-allow-headers"]
        assert (await preflight(client, "https://other.example")).status_code == 400
        headers = {"origin": PAGE}
        refused = await client.post("/predict", content=flat(130), headers=headers)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == PAGE  # so that it can be read
        assert "access-control-allow-credentials" not in refused.headers
