"""Serves the page at `/`, which tries pictures and a camera, from the files in `service/web`.

The files are served from memory, with a content security policy that lets the browser load from and
send to this service only.
"""

import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parents[1] / "web"
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # explanations come as data
        "connect-src 'self'",
        "media-src blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # Text cannot become markup or a script.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    # Revalidated at each use, so that a new version's scripts never run in an old version's page.
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def add_page(app: FastAPI) -> frozenset[str]:
    """Add the page and its files to `app`; reads the files, so call it at start-up.

    Args:
        app: Without a route at `/`.

    Returns:
        The paths. They contain no user data and need no API key.
    """
    files = {_path_of(file): file for file in sorted(_FOLDER.iterdir())}
    for path, file in files.items():
        app.add_route(path, _create_handler(file.read_bytes(), _MEDIA_TYPES[file.suffix]))
    return frozenset(files)


def _path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/web/{file.name}"


def _create_handler(
    content: bytes, media_type: str
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}

    async def serve(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve
