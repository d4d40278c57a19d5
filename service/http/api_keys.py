"""Who may ask: API keys, and from which web pages.

Without keys everybody may, and without origins no other page's script. Not its duty: answering
those who may not; the error middleware turns what is raised here into a problem.
"""

import hmac
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized
from service.http.document import problems
from service.telemetry import request_id

KEY_HEADER = "x-api-key"

_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class ApiKeys:
    """The keys that are valid."""

    def __init__(self, keys: Collection[str]) -> None:
        """Know `keys`; at least one."""
        self._keys = [key.encode("ascii") for key in keys]

    def among(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request has one of them.

        Args:
            headers: The request's, names in lower case.
        """
        return any(map(self._knows, _offered(headers)))

    def _knows(self, offered: bytes) -> bool:
        # All of them, and each in constant time: how long it takes tells nothing about any key.
        return sum([hmac.compare_digest(offered, key) for key in self._keys]) > 0


class ApiKeyMiddleware:
    """ASGI middleware: lets nobody without a key through, except to the paths that are open."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: Collection[str]) -> None:
        """Guard `app`.

        Args:
            app: What answers.
            keys: Any of them will do.
            open_paths: Whole paths that need none.
        """
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on.

        Raises:
            Unauthorized: It has no key, or a wrong one. Nothing of its body was read.
        """
        guarded = scope["type"] == "http" and scope["path"] not in self._open
        if guarded and not self._keys.among(scope["headers"]):
            raise Unauthorized("Send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        await self._app(scope, receive, send)


def _offered(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == KEY_HEADER.encode():
            yield value
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def describe_keys(app: FastAPI, open_paths: Collection[str]) -> None:
    """Say in the API's document which paths need a key, and how to send it."""
    document = app.openapi()  # kept by the application and served from then on
    document["components"]["securitySchemes"] = _SCHEMES
    for path, methods in document["paths"].items():
        for operation in methods.values() if path not in open_paths else ():
            operation["security"] = [{name: []} for name in _SCHEMES]
            answers = operation["responses"]
            # As every other problem of this path is written.
            answers["401"] = _unauthorized() | {"content": answers["400"]["content"]}


def _unauthorized() -> dict[str, Any]:
    return problems(401)[401]


def open_to(app: FastAPI, origins: Collection[str]) -> None:
    """Let scripts of pages from these origins use the service; "*" means any."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("authorization", KEY_HEADER, request_id.HEADER),
        expose_headers=(request_id.HEADER, "retry-after", "www-authenticate"),
    )


def client_of(scope: Scope, keys: bool) -> Hashable:
    """Return what is the same for all requests of one client.

    Args:
        scope: The request's, as ASGI has it.
        keys: Whether nobody is let in without an API key: else a client could send any.

    Returns:
        The key, where one is needed; else the address, of IPv6 the network of 64 bits.
    """
    if keys:
        for name, value in scope["headers"]:
            if name in (b"x-api-key", b"authorization"):
                return bytes(value)
    host = scope["client"][0] if scope.get("client") else ""
    return host if "." in host else ":".join(host.split(":")[:4])
