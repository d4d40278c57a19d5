"""The service's address, the proxy on the way to it, and the values that an HTTP client takes.

All is checked before the first request: what is wrong here does not become right by a retry.
"""

import importlib.util
import ipaddress
import math
import re
import urllib.request
from collections.abc import Mapping

import httpx

MAX_TIMEOUT_S = 86_400.0

_LABEL = "[a-z0-9_][a-z0-9_-]{0,62}"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)
_KEY = re.compile(r"[!-~]+")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def parse_url(text: str) -> httpx.URL:
    """Parse the address of a service; without a scheme it is http.

    Raises:
        ValueError: It is none; says why.
    """
    url = _parsed(text.strip(), f"the address {text!r}")
    if url.scheme not in ("http", "https"):
        raise ValueError(f"the address {text!r} must begin with http:// or https://")
    if url.query or url.fragment:
        raise ValueError(f"the address {text!r} must have no query (?) and no fragment (#)")
    return url


def parse_key(key: str | None) -> str | None:
    """Check an API key; an empty one is none.

    Raises:
        ValueError: It has characters that no key of the service has. The key is not repeated.
    """
    if key and not _KEY.fullmatch(key):
        raise ValueError("the API key must have visible ASCII characters only, without spaces")
    return key or None


def parse_timeout(seconds: float) -> float:
    """Check a time limit in seconds; raises `ValueError` if it is none."""
    if not 0 < seconds <= MAX_TIMEOUT_S or math.isnan(seconds):
        limit = f"above 0 and at most {MAX_TIMEOUT_S:.0f} s"
        raise ValueError(f"a timeout must be {limit}, and is not {seconds:g}")
    return float(seconds)


def parse_retries(count: int) -> int:
    """Check a number of retries; raises `ValueError` if it is negative."""
    if count < 0:
        raise ValueError(f"the number of retries must be 0 or more, and is not {count}")
    return count


def find_proxy(url: httpx.URL, settings: Mapping[str, str] | None = None) -> httpx.Proxy | None:
    """Return the proxy that the environment names for an address; None if there is none.

    The machine itself (localhost, 127.0.0.0/8, ::1) is never asked for by a proxy.

    Args:
        url: Of the service.
        settings: Proxies by scheme, and `no`, the hosts without one; read from the environment
            (and from the system on macOS and Windows) if None.

    Raises:
        ValueError: The proxy's address is none, or it needs a package that is not installed.
    """
    settings = urllib.request.getproxies() if settings is None else settings
    scheme = url.scheme if settings.get(url.scheme) else "all"
    named = settings.get(scheme)
    if not named or _is_here(url.host) or _is_excepted(url, settings.get("no", "")):
        return None
    # Without its text, which may have a password.
    what = f"{scheme.upper()}_PROXY in the environment"
    proxy = _parsed(named, what)
    if proxy.scheme not in _PROXY_SCHEMES:
        raise ValueError(f"{what} must begin with one of {', '.join(_PROXY_SCHEMES)}")
    if proxy.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ValueError(
            f"{what} is a SOCKS proxy: install httpx[socks], or name {url.host} in NO_PROXY"
        )
    return httpx.Proxy(proxy)


def _parsed(text: str, what: str) -> httpx.URL:
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{what} is not valid: {_reason(error)}") from None
    host = url.raw_host.decode("ascii")
    if not (_HOST.fullmatch(host) or _ip(host)):
        raise ValueError(f"{what} has no valid host")
    if url.port is not None and not 1 <= url.port <= 65_535:
        raise ValueError(f"{what} is not valid: a port must be 1 to 65535")
    return url


def _reason(error: Exception) -> str:
    """Return what httpx found, without the text itself, which may have a password."""
    return "the port is not a number" if "port" in str(error) else "it is not a URL"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_here(host: str) -> bool:
    address = _ip(host)
    return host.rstrip(".") == "localhost" if address is None else address.is_loopback


def _is_excepted(url: httpx.URL, names: str) -> bool:
    return any(_covers(name.strip().lower(), url) for name in names.split(","))


def _covers(name: str, url: httpx.URL) -> bool:
    """Return whether an entry of NO_PROXY covers an address.

    An entry is `*`, an IP address or a network in CIDR notation, or a name, which covers the names
    below it; names and addresses may have a port.
    """
    host = url.host.rstrip(".")
    if name == "*":
        return True
    if address := _ip(host):
        try:
            return address in ipaddress.ip_network(name.strip("[]"), strict=False)
        except ValueError:  # it has a port, or is a name
            return name == f"[{address}]:{_port(url)}" or name == f"{address}:{_port(url)}"
    name, _, port = name.removeprefix("*").partition(":")
    name = name.strip(".")
    return bool(name) and port in ("", str(_port(url))) and f".{host}".endswith(f".{name}")


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]
