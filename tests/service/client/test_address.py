import sys

import httpx
import pytest

from service.client.address import (
    find_proxy,
    parse_key,
    parse_retries,
    parse_timeout,
    parse_url,
)

PROXY = "http://proxy:3128"
SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://fer.example/prefix/", "https://fer.example/prefix/"),
        ("localhost:8000", "http://localhost:8000"),
        ("fer.example", "http://fer.example"),
        ("fer.example/prefix", "http://fer.example/prefix"),
        ("192.0.2.1:80", "http://192.0.2.1"),
        ("[::1]:8000", "http://[::1]:8000"),
        (" http://my_service:8000\n", "http://my_service:8000"),
        ("bücher.example", "http://bücher.example"),
        ("http://user:password@fer.example", "http://user:password@fer.example"),
        ("http://fer.example.:8000", "http://fer.example.:8000"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert parse_url(text) == httpx.URL(url)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://localhost:http", "the port is not a number"),
        ("localhost:", None),
        ("localhost:8000x", "the port is not a number"),
        ("http://localhost:99999", "a port must be 1 to 65535"),
        ("http://localhost:0", "a port must be 1 to 65535"),
        ("http://localhost:-1", "a port must be 1 to 65535"),
        ("ftp://localhost", "must begin with http:// or https://"),
        ("file:///etc/passwd", "no valid host"),
        ("http://", "no valid host"),
        ("", "no valid host"),
        ("http:///predict", "no valid host"),
        ("http://a b", "no valid host"),
        ("http://a..b", "no valid host"),
        (f"http://{'a' * 64}.example", "no valid host"),
        ("http://[::1", "not valid"),
        ("::1", "not valid"),
        ("http://fer.example/?detect=never", "must have no query"),
        ("http://fer.example/#top", "must have no query"),
        ("http://fer\x00.example", "it is not a URL"),
        ("http://\udcff", "not valid"),
    ],
)
def test_what_is_no_address(text: str, reason: str | None) -> None:
    if reason is None:  # an empty port is the scheme's, as in browsers
        assert parse_url(text).port is None
        return
    with pytest.raises(ValueError, match=reason):
        parse_url(text)


@pytest.mark.parametrize("key", ["clé-0123456789abcdef", "two words", "line\n", "\udcff", "tab\t"])
def test_what_is_no_key_is_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        parse_key(key)
    assert key not in str(caught.value)


def test_keys() -> None:
    assert parse_key("0123456789abcdef!~") == "0123456789abcdef!~"
    assert parse_key("") is parse_key(None) is None


@pytest.mark.parametrize(
    "seconds", [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, -0.0, 86_401.0, 1e300]
)
def test_what_is_no_timeout(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 86400 s"):
        parse_timeout(seconds)


def test_timeouts_and_retries() -> None:
    assert (parse_timeout(1e-3), parse_timeout(86_400)) == (1e-3, 86_400.0)
    assert (parse_retries(0), parse_retries(7)) == (0, 7)
    with pytest.raises(ValueError, match="0 or more, and is not -1"):
        parse_retries(-1)


def proxy_of(url: str, **settings: str) -> str | None:
    proxy = find_proxy(parse_url(url), settings)
    return None if proxy is None else str(proxy.url)


def test_a_proxy_by_scheme() -> None:
    assert proxy_of("http://fer.example", http=PROXY, https="http://other:1") == PROXY
    assert proxy_of("https://fer.example", http="http://other:1", https=PROXY) == PROXY
    assert proxy_of("http://fer.example", all=PROXY) == PROXY
    assert proxy_of("http://fer.example", https=PROXY) is None
    assert proxy_of("http://fer.example", http="", all=PROXY) == PROXY
    assert proxy_of("http://fer.example") is None
    assert proxy_of("http://fer.example", http="proxy:3128") == PROXY  # without a scheme


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "LOCALHOST", "localhost."],
)
def test_the_machine_itself_is_not_asked_for(url: str) -> None:
    assert proxy_of(url, http=PROXY, all="socks5://localhost:1080") is None


@pytest.mark.parametrize(
    ("url", "excepted"),
    [
        ("fer.example", "*"),
        ("fer.example", "fer.example"),
        ("fer.example", "other.example, FER.example"),
        ("a.fer.example", "fer.example"),
        ("a.fer.example", ".fer.example"),
        ("a.fer.example", "*.fer.example"),
        ("fer.example:8000", "fer.example:8000"),
        ("fer.example.", "fer.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.0/24"),
        ("192.0.2.7:8000", "192.0.2.7:8000"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]", "[2001:db8::7]"),
        ("[2001:db8::7]", "::1,2001:db8::/32"),
        ("[2001:db8::7]:8000", "[2001:db8::7]:8000"),
    ],
)
def test_hosts_without_a_proxy(url: str, excepted: str) -> None:
    assert proxy_of(url, http=PROXY, no=excepted) is None


@pytest.mark.parametrize(
    ("url", "excepted"),
    [
        ("fer.example", ""),
        ("fer.example", ","),
        ("fer.example", "."),
        ("fer.example", "r.example"),
        ("fer.example", "a.fer.example"),
        ("fer.example", "fer.example:8000"),
        ("192.0.2.7", "192.0.3.0/24"),
        ("192.0.2.7", "2"),
        ("192.0.2.7", "192.0.2.7:8000"),
        ("[2001:db8::7]", "::1,2001:db9::/32,[broken"),
    ],
)
def test_hosts_with_a_proxy(url: str, excepted: str) -> None:
    assert proxy_of(url, http=PROXY, no=excepted) == PROXY


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        (f"http://user:{SECRET}@proxy:port", "HTTP_PROXY in the environment is not valid"),
        (f"http://user:{SECRET}@proxy:99999", "a port must be 1 to 65535"),
        (f"quic://user:{SECRET}@proxy:1", "HTTP_PROXY in the environment must begin with one of"),
        (f"http://user:{SECRET}@", "HTTP_PROXY in the environment has no valid host"),
    ],
)
def test_a_wrong_proxy_is_named_without_its_password(proxy: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        proxy_of("fer.example", http=proxy)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_without_its_package(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ALL_PROXY .* is a SOCKS proxy: install httpx\[socks\]"):
        proxy_of("fer.example", all=f"{scheme}://localhost:1080")
    assert proxy_of("fer.example", http=PROXY, all=f"{scheme}://localhost:1080") == PROXY


def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "::1,fe80::/10,other.example")
    proxy = find_proxy(parse_url("fer.example"))
    assert proxy is not None
    assert str(proxy.url) == PROXY
    assert find_proxy(parse_url("other.example")) is None
