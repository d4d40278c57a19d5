"""The API held against its own document by schemathesis, over a real socket.

`FER_FUZZ_INPUTS` sets how many requests each operation gets, a thousandth of it.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.service.server_processes import Server, ready, running
from tests.service.test_faults import FAULTY

EXAMPLES = max(20, int(os.environ.get("FER_FUZZ_INPUTS", "240000")) // 1000)
KEY = "schemathesis-0123456789"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
    unsupported_method,
]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of the tool, not of ours


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    environ = {"TEST_ENGINE": "steady", "FER_API_KEYS": KEY, "FER_OPEN_PATHS": "/openapi.json"}
    with running(environ, FAULTY) as server:
        yield server
        assert ready_with_key(server)
        assert "Traceback" not in server.log
        assert server.stop() == 0


def ready_with_key(server: Server) -> bool:
    assert not ready(server)  # without the key
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.get(f"{server.url}/health/ready", headers=headers).status_code == 200


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()
    yield seen
    capture = request.config.pluginmanager.getplugin("capturemanager")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    with capture.global_and_fixture_disabled():
        reporter.write_line(f"\nschemathesis: {dict(sorted(seen.items()))}")


@pytest.fixture(scope="module")
def document(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def each_case(
    document: schemathesis.BaseSchema, examples: int, check: Callable[[schemathesis.Case], None]
) -> None:
    """Give `check` so many requests for every operation of the document."""
    chosen = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 5
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)
            with contextlib.suppress(Unsatisfiable):  # nothing to get wrong: no body, no parameter
                chosen(given(strategy)(check))()


def test_every_answer_is_documented(document: schemathesis.BaseSchema, seen: Counter[str]) -> None:
    def check(case: schemathesis.Case) -> None:
        response = case.call(headers={"authorization": f"Bearer {KEY}"})
        seen[f"{case.operation.label} {response.status_code}"] += 1
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
        case.validate_response(response, checks=CHECKS)

    each_case(document, EXAMPLES, check)
    assert seen["POST /predict 400"] > 0


def test_nothing_is_answered_without_a_key(
    document: schemathesis.BaseSchema, seen: Counter[str]
) -> None:
    def check(case: schemathesis.Case) -> None:
        response = case.call()
        seen[f"{case.operation.label} {response.status_code}, no key"] += 1
        assert response.status_code == 401
        case.validate_response(response, checks=[status_code_conformance, content_type_conformance])

    each_case(document, 20, check)


def test_schemathesis_finds_what_is_wrong(document: schemathesis.BaseSchema) -> None:
    """The checks fail where they should: an answer that the document does not have."""
    case = document["/metrics"]["GET"].Case()
    response = case.call()
    assert response.status_code == 401
    del document.raw_schema["paths"]["/metrics"]["get"]["responses"]["401"]
    other = schemathesis.openapi.from_dict(document.raw_schema)["/metrics"]["GET"].Case()
    with pytest.raises(schemathesis.core.failures.FailureGroup):
        other.validate_response(response, checks=[status_code_conformance])
