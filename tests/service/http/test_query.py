import pytest

from service.engine.prior import Priors
from service.errors import BadRequest
from service.http.query import PARAMETERS, read_prior, read_search
from service.pictures.search import MAX_FACES, FaceSearch
from tests.service.serving import STATED


def test_nothing_asked_is_the_default() -> None:
    assert read_search(b"") == FaceSearch("auto", 64)
    assert [parameter["schema"].get("default") for parameter in PARAMETERS] == [
        "auto", 64, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "search"),
    [
        (b"detect=never", FaceSearch("never", 64)),
        (b"max_faces=1", FaceSearch("auto", 1)),
        (b"detect=always&max_faces=%d" % MAX_FACES, FaceSearch("always", MAX_FACES)),
        (b"detect=always&detect=never", FaceSearch("never", 64)),
        (b"%64etect=n%65ver&max_faces=2", FaceSearch("never", 2)),
        (b"&&detect&=&max_faces=3&detect=never", FaceSearch("never", 3)),
    ],
)
def test_what_is_asked_is_read(query: bytes, search: FaceSearch) -> None:
    assert read_search(query) == search


@pytest.mark.parametrize("detect", [b"", b"Always", b"yes", b"auto+", b"auto%20"])
def test_an_unknown_way_is_refused_by_name(detect: bytes) -> None:
    with pytest.raises(BadRequest, match="detect is none of auto, always, never"):
        read_search(b"detect=" + detect)


@pytest.mark.parametrize(
    "count", [b"", b"0", b"-1", b"1.5", b"257", b"9" * 400, b"%D9%A3", b"\xb2", b"%2B1", b"+1"]
)
def test_a_count_out_of_range_is_refused_by_name(count: bytes) -> None:
    with pytest.raises(BadRequest, match="max_faces is not a whole number from 1 to 256"):
        read_search(b"max_faces=" + count)


@pytest.mark.parametrize("query", [b"maxfaces=2", b"detect=auto&Detect=never", b"x"])
def test_an_unknown_parameter_is_refused_by_name(query: bytes) -> None:
    with pytest.raises(BadRequest, match=r"There is no parameter '.*'; expected detect, max_faces"):
        read_search(query)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"", "balanced"),
        (b"detect=never", "balanced"),
        (b"prior=uniform", "uniform"),
        (b"detect=never&%70rior=train%69ng", "training"),
        (b"prior=uniform&prior=training", "training"),
    ],
)
def test_a_prior_is_read_or_the_default(query: bytes, text: str) -> None:
    assert read_prior(query, Priors(STATED)).text == text


@pytest.mark.parametrize("text", [b"", b"Uniform", b"anger:1", b"%FF"])
def test_what_is_no_prior_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest, match="prior"):
        read_prior(b"prior=" + text, Priors(STATED))
