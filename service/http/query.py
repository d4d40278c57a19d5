"""Parses the query parameters of the search for faces."""

import re
from functools import lru_cache
from typing import Any, Final, get_args

from starlette.datastructures import QueryParams

from service.engine.prior import Prior, Priors
from service.errors import BadRequest
from service.pictures.search import MAX_FACES, MIN_FACE, Detect, FaceSearch

_DEFAULT: Final = FaceSearch()
_NUMBER = re.compile(r"[0-9]{0,3}\.?[0-9]{1,9}", re.ASCII)

PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "detect",
        "in": "query",
        "description": (
            "Whether to look for faces: `always`; `never` takes the whole picture for one; `auto` "
            "does that with small, nearly square pictures only, which are crops already."
        ),
        "schema": {"type": "string", "enum": list(get_args(Detect)), "default": _DEFAULT.detect},
    },
    {
        "name": "max_faces",
        "in": "query",
        "description": "Most faces of a picture that are answered, the largest first.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_FACES,
            "default": _DEFAULT.max_faces,
        },
    },
    {
        "name": "min_face",
        "in": "query",
        "description": (
            "The smallest face that is searched for, as a share of the picture's long side. The "
            "larger, the less time it takes. Without it, faces from 0.02 are searched for, but "
            "small faces beside large ones only where a quick look finds one of them."
        ),
        "schema": {"type": "number", "minimum": MIN_FACE, "maximum": 1},
    },
    {
        "name": "prior",
        "in": "query",
        "description": (
            "How frequent each emotion is taken to be: `uniform`, all alike; `training`, as in the "
            "training labels; `balanced`, in proportion to the square root of that; or the share "
            "of every emotion, `anger:1,disgust:0.5,...`. The service has a default."
        ),
        "schema": {"type": "string"},
    },
]
"""The query parameters for the OpenAPI document."""
_NAMES: Final = frozenset(parameter["name"] for parameter in PARAMETERS)


# Clients repeat few queries; the server limits their length to 64 kB.
@lru_cache(maxsize=64)
def read_search(query_string: bytes) -> FaceSearch:
    """Parse the search in a query.

    Args:
        query_string: As received; missing parameters have their defaults.

    Raises:
        BadRequest: A parameter is unknown, or its value invalid; says what is valid.
    """
    if not query_string:
        return _DEFAULT
    query = QueryParams(query_string)
    if unknown := sorted(query.keys() - _NAMES - {""}):
        known = ", ".join(sorted(_NAMES))
        raise BadRequest(f"There is no parameter {unknown[0][:40]!r}; expected {known}.")
    detect = query.get("detect", _DEFAULT.detect)
    if detect not in get_args(Detect):
        raise BadRequest(f"detect is none of {', '.join(get_args(Detect))}.")
    text = query.get("max_faces", str(_DEFAULT.max_faces))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_FACES):
        raise BadRequest(f"max_faces is not a whole number from 1 to {MAX_FACES}.")
    min_face = _read_share(query.get("min_face", ""))
    return FaceSearch(detect, int(text), min_face)  # type: ignore[arg-type] # it is one of them


def read_prior(query_string: bytes, priors: Priors) -> Prior:
    """Parse the prior in a query.

    Args:
        query_string: As received.
        priors: Of the checkpoint; has the default.

    Raises:
        BadRequest: The value is invalid; says what is wrong.
    """
    return choose_prior(QueryParams(query_string).get("prior") if query_string else None, priors)


def choose_prior(text: str | None, priors: Priors) -> Prior:
    """Return the prior that a request names; None is the default.

    Raises:
        BadRequest: It is invalid; says what is wrong.
    """
    if text is None:
        return priors.default
    try:
        return priors.read(text)
    except ValueError as error:
        raise BadRequest(f"{error}.") from None


def _read_share(text: str) -> float | None:
    if not text:
        return None
    if _NUMBER.fullmatch(text) and MIN_FACE <= float(text) <= 1:
        return float(text)
    raise BadRequest(f"min_face is not a number from {MIN_FACE:g} to 1.")
