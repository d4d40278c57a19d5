"""The page at /docs: Swagger UI from local files, so that it works offline.

FastAPI's own page loads its scripts from another site, which learns who reads it, and could run any
code in the service's origin.
"""

from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

DOCUMENT = "/openapi.json"
"""The path of the OpenAPI document."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
# The links are relative, so that they work behind a proxy's path prefix.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>attention-fer</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-document="openapi.json"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """const place = document.getElementById("swagger-ui");
SwaggerUIBundle({ url: place.dataset.document, domNode: place, deepLinking: true });
"""
_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def find_swagger_ui() -> Path | None:
    """Return the folder of Swagger UI's files; None if its package is not installed."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "static"


def add_docs(app: FastAPI, folder: Path) -> frozenset[str]:
    """Add the page and its files to `app`.

    Args:
        app: Created with `docs_url=None`.
        folder: Of Swagger UI's files.

    Returns:
        Their paths, and that of the document. They contain no user data and need no API key.
    """
    pages: dict[str, tuple[str | Path, str]] = {
        "/docs": (_PAGE, "text/html"),
        "/docs/start.js": (_START, "text/javascript"),
    }
    pages |= {f"/docs/{name}": (folder / name, kind) for name, kind in _FILES.items()}
    for path, (content, media_type) in pages.items():
        app.add_route(path, _create_handler(content, media_type))
    return frozenset({*pages, DOCUMENT})


def _create_handler(
    content: str | Path, media_type: str
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def serve(_: Request) -> Response:
        if isinstance(content, Path):
            return FileResponse(content, headers=_HEADERS, media_type=media_type)
        return Response(content, headers=_HEADERS, media_type=media_type)

    return serve
