"""Access control: API keys, and CORS for the scripts of web pages.

Without configured keys every client has access; without origins no other page's script has. The
error middleware answers a refused request.
"""

import hmac
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized
from service.http.document import describe_problems
from service.http.v2.requests import HEADER as JSON_LENGTH_HEADER
from service.telemetry import request_id

KEY_HEADER = "x-api-key"

_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class ApiKeys:
    """The valid keys."""

    def __init__(self, keys: Collection[str]) -> None:
        """Store the keys, one or more."""
        self._keys = [key.encode("ascii") for key in keys]

    def authorise(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether a request has a valid key.

        Args:
            headers: The request's, names in lower case.
        """
        return any(map(self._is_valid, _find_keys(headers)))

    def _is_valid(self, offered: bytes) -> bool:
        # Compares with all keys, each in constant time, so that the time reveals nothing.
        return sum([hmac.compare_digest(offered, key) for key in self._keys]) > 0


class ApiKeyMiddleware:
    """ASGI middleware: refuses requests without a valid key, except on open paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: Collection[str]) -> None:
        """Wrap `app`.

        Args:
            app: The inner application.
            keys: The valid keys.
            open_paths: Whole paths that need no key.
        """
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it is authorised.

        Raises:
            Unauthorized: It has no key or a wrong one. Its body was not read.
        """
        guarded = scope["type"] == "http" and scope["path"] not in self._open
        if guarded and not self._keys.authorise(scope["headers"]):
            raise Unauthorized("Send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        await self._app(scope, receive, send)


def _find_keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == KEY_HEADER.encode():
            yield value
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def describe_keys(app: FastAPI, open_paths: Collection[str]) -> None:
    """Describe in the OpenAPI document which paths need a key, and how to send it."""
    document = app.openapi()  # cached and served by the application
    document["components"]["securitySchemes"] = _SCHEMES
    for path, methods in document["paths"].items():
        for operation in methods.values() if path not in open_paths else ():
            operation["security"] = [{name: []} for name in _SCHEMES]
            answers = operation["responses"]
            # In the same media type as the path's other problems.
            answers["401"] = _unauthorized() | {"content": answers["400"]["content"]}


def _unauthorized() -> dict[str, Any]:
    return describe_problems(401)[401]


def add_cors(app: FastAPI, origins: Collection[str]) -> None:
    """Allow scripts of pages from these origins to use the service; "*" means any."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("authorization", KEY_HEADER, request_id.HEADER, JSON_LENGTH_HEADER),
        expose_headers=(request_id.HEADER, "retry-after", "www-authenticate", JSON_LENGTH_HEADER),
    )


def identify_client(scope: Scope, keys: bool) -> Hashable:
    """Return a value that is equal for all requests of one client.

    Args:
        scope: The request's ASGI scope.
        keys: Whether an API key is required: otherwise a client could send any.

    Returns:
        The key if one is required, else the IP address; of IPv6 the /64 network.
    """
    if keys:
        for name, value in scope["headers"]:
            if name in (b"x-api-key", b"authorization"):
                return bytes(value)
    host = scope["client"][0] if scope.get("client") else ""
    return host if "." in host else ":".join(host.split(":")[:4])
