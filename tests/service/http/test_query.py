import pytest

from service.errors import BadRequest
from service.http.query import PARAMETERS, read_search
from service.pictures.search import MAX_FACES, FaceSearch


def test_nothing_asked_is_the_default() -> None:
    assert read_search({}) == FaceSearch("auto", 64)
    assert [parameter["schema"]["default"] for parameter in PARAMETERS] == ["auto", 64]


@pytest.mark.parametrize(
    ("query", "search"),
    [
        ({"detect": "never"}, FaceSearch("never", 64)),
        ({"max_faces": "1"}, FaceSearch("auto", 1)),
        ({"detect": "always", "max_faces": str(MAX_FACES)}, FaceSearch("always", MAX_FACES)),
        ({"other": "x"}, FaceSearch()),
    ],
)
def test_what_is_asked_is_read(query: dict[str, str], search: FaceSearch) -> None:
    assert read_search(query) == search


@pytest.mark.parametrize("detect", ["", "Always", "yes", "auto "])
def test_an_unknown_way_is_refused_by_name(detect: str) -> None:
    with pytest.raises(BadRequest, match="detect is none of auto, always, never"):
        read_search({"detect": detect})


@pytest.mark.parametrize("count", ["", "0", "-1", "1.5", "257", "9" * 400, "\u0663", "+1", " 1"])
def test_a_count_out_of_range_is_refused_by_name(count: str) -> None:
    with pytest.raises(BadRequest, match="max_faces is not a whole number from 1 to 256"):
        read_search({"max_faces": count})
