"""Which address may get the API key, and where an output may come from. Names are resolved by the test."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_bitdance.exceptions import InputError, OutputError, OutputRefusedError
from airflow_provider_bitdance.wavespeed.settings import ClientSettings
from airflow_provider_bitdance.wavespeed.urls import LONGEST_URL, OutputRule, base_url, uses_proxy

pytestmark = pytest.mark.usefixtures("no_garbage_collection")

API = "https://api.wavespeed.ai"
PUBLIC, PRIVATE = "93.184.215.14", "10.1.2.3"
NAMES = {
    "api.wavespeed.ai": [PUBLIC],
    "cdn.example": [PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "inside.example": [PRIVATE],
    "two-faced.example": [PUBLIC, PRIVATE],
    "gateway.corp": ["10.9.9.9"],
}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def resolve(host: str) -> list[str]:
    try:
        return NAMES[host]
    except KeyError:
        raise OSError("no such name") from None


def check(url: str, *, api: str = API) -> None:
    asyncio.run(OutputRule(api, resolve=resolve).check(url))


def allows(url: str, *, api: str = API) -> bool:
    try:
        check(url, api=api)
    except OutputRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://api.wavespeed.ai", "https://api.wavespeed.ai"),
        (" https://api.wavespeed.ai/ ", "https://api.wavespeed.ai"),
        ("HTTPS://API.WaveSpeed.ai", "https://api.wavespeed.ai"),
        ("https://api.wavespeed.ai/api/v3", "https://api.wavespeed.ai"),
        ("https://api.wavespeed.ai/api/v3/", "https://api.wavespeed.ai"),
        ("https://api.wavespeed.ai:443", "https://api.wavespeed.ai"),
        ("https://api.wavespeed.ai:8443", "https://api.wavespeed.ai:8443"),
        ("https://gateway.corp/wavespeed/api/v3", "https://gateway.corp/wavespeed"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_one_service_has_one_address(given: str, base: str) -> None:
    assert base_url(given) == base
    assert base_url(base) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.wavespeed.ai",
        "ftp://api.wavespeed.ai",
        "https://",
        "https:///api/v3",
        "https://user:secret@api.wavespeed.ai",
        "https://:secret@api.wavespeed.ai",
        "https://@api.wavespeed.ai",
        "https://api.wavespeed.ai?key=1",
        "https://api.wavespeed.ai#x",
        "https://api.wavespeed.ai:port",
        "https://api.wavespeed.ai:99999",
        "https://[::1",
        "https://[nonsense]",
        "https://api wavespeed.ai",
        "https://api..wavespeed.ai",
        "https://.wavespeed.ai",
        f"https://{'a' * 64}.ai",
        "https://{{ host }}",
        "None",
    ],
)
def test_an_address_that_is_no_plain_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(InputError, match="not a plain https URL") as caught:
        base_url(url, allow_http=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["api.wavespeed.ai", "10.0.0.1", "localhost.evil.example", "0.0.0.0"])
def test_the_key_goes_over_http_to_another_machine_only_where_the_user_says_so(host: str) -> None:
    with pytest.raises(InputError, match="allow_http"):
        base_url(f"http://{host}")
    assert base_url(f"http://{host}", allow_http=True) == f"http://{host}"


def test_the_host_of_the_api_is_its_name_and_port() -> None:
    assert ClientSettings("key").host == "api.wavespeed.ai"
    assert ClientSettings("key", base_url="http://[::1]:8000/ws").host == "[::1]:8000"


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example/a.png",
        f"https://{PUBLIC}/a.png",
        "https://[2606:4700::1]:444/",
        "https://[::ffff:93.184.215.14]/",
    ],
)
def test_an_output_may_come_from_a_public_host(url: str) -> None:
    assert allows(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/a.png",
        "ftp://cdn.example/a.png",
        "file:///etc/passwd",
        "//cdn.example/a.png",
        "/a.png",
        "",
        "https://",
        "data:image/png;base64,AAAA",
    ],
)
@pytest.mark.parametrize("api", [API, "http://gateway.corp", "https://127.0.0.1:8000"])
def test_an_output_is_https_only(url: str, api: str) -> None:
    with pytest.raises(OutputRefusedError, match="not https"):
        check(url, api=api)


HOSTILE_URLS = {
    "labels": "https://" + "é." * 340_000 + "com/a.png",
    "accents": "https://" + "\u0300\u0316" * 340_000 + "/a.png",
    "labels within the limit": "https://" + "é." * 4_000 + "/a.png",
    "path": "https://cdn.example/" + "a" * 2**20,
    "image in the URL": "data:image/png;base64," + "A" * 2**20,
}


@pytest.mark.parametrize("url", HOSTILE_URLS.values(), ids=HOSTILE_URLS)
def test_an_endless_url_is_refused_before_it_is_read(url: str) -> None:
    began = time.process_time()
    with pytest.raises(OutputRefusedError):
        check(url)
    assert time.process_time() - began < 0.05


def test_a_url_may_have_a_long_signature() -> None:
    longest = LONGEST_URL - len("https://cdn.example/")
    assert allows("https://cdn.example/" + "a" * longest)
    assert not allows("https://cdn.example/" + "a" * (longest + 1))


def test_an_output_may_be_http_where_the_api_is_http_on_loopback() -> None:
    assert allows("http://127.0.0.1:9/a.png", api="http://127.0.0.1:8000")


UNSAFE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fd00::1]",
    "[ff02::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:224.0.0.1]",
]


@pytest.mark.parametrize("host", [*UNSAFE, "inside.example", "two-faced.example"])
def test_an_output_at_an_address_that_is_not_public_is_refused(host: str) -> None:
    with pytest.raises(OutputRefusedError, match="private IP address"):
        check(f"https://{host}/a.png")


@pytest.mark.parametrize("host", [*UNSAFE, "inside.example"])
@pytest.mark.parametrize("api", ["http://127.0.0.1:8000", "https://gateway.corp", "https://10.9.9.9"])
def test_an_output_may_be_private_where_the_api_is(host: str, api: str) -> None:
    assert allows(f"https://{host}/a.png", api=api)


@pytest.mark.parametrize("url", ["https://[::1/a.png", "https://[x]/a.png"])
def test_an_output_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(OutputRefusedError, match="malformed"):
        check(url)


def test_a_host_without_an_address_may_have_one_later() -> None:
    with pytest.raises(OutputError, match="does not resolve at the moment") as caught:
        check("https://unknown.example/a.png")
    assert caught.value.retry_helps
    assert "unknown.example" not in str(caught.value)


def test_a_host_name_that_cannot_be_asked_for_is_an_output_error_too() -> None:
    with pytest.raises(OutputError, match="does not resolve at the moment"):
        asyncio.run(OutputRule(API).check("https://a..b/a.png"))


def test_a_host_name_is_looked_up_on_this_machine() -> None:
    with pytest.raises(OutputRefusedError, match="private IP address"):
        asyncio.run(OutputRule("https://93.184.215.14").check("https://localhost/a.png"))


def test_no_error_shows_the_outputs_url() -> None:
    for url in (
        "http://cdn.example/signed",
        "https://inside.example/signed",
        "https://unknown.example/signed",
    ):
        with pytest.raises(OutputError) as caught:
            check(url)
        assert "signed" not in str(caught.value)
        assert "example" not in str(caught.value)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_behind_a_proxy_names_are_left_to_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://proxy.corp:3128")
    assert allows("https://unknown.example/a.png")


def test_behind_a_proxy_a_private_address_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    with pytest.raises(OutputRefusedError, match="private IP address"):
        check("https://169.254.169.254/latest/meta-data")


@pytest.mark.parametrize(
    "exceptions", ["*", "a.example, *", "inside.example", ".example", "EXAMPLE", "https://inside.example"]
)
def test_a_host_that_bypasses_the_proxy_is_checked(exceptions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    with pytest.raises(OutputRefusedError, match="private IP address"):
        check("https://inside.example/a.png")


@pytest.mark.parametrize(
    ("environment", "url", "through"),
    [
        ({}, "https://a.example/", False),
        ({"NO_PROXY": "b.example"}, "https://a.example/", False),
        ({"HTTP_PROXY": "http://p"}, "https://a.example/", False),
        ({"HTTP_PROXY": "http://p"}, "http://a.example/", True),
        ({"HTTPS_PROXY": "http://p"}, "https://a.example/", True),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "b.example"}, "https://a.example/", True),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "a.example:443"}, "https://a.example:443/", False),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "example"}, "https://a-example/", True),
        ({"ALL_PROXY": "http://p", "NO_PROXY": ""}, "https://a.example/", True),
    ],
)
def test_a_proxy_is_used_where_the_environment_says_so(
    environment: dict[str, str], url: str, through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert uses_proxy(url) is through


@pytest.mark.parametrize(
    "address",
    [
        *("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254"),
        *("64:ff9b:1::93.184.215.14", "64:ff9b:1:fffe::1"),
        *("2002:a00:1::1", "2002:5db8:d70e::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
        *("::10.0.0.1", "::93.184.215.14", "::ffff:0:10.0.0.1", "::ffff:0:93.184.215.14"),
        *("fec0::1", "feff::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "::", "::1"),
        *("::ffff:10.0.0.1", "100::1", "2001:db8::1", "5f00::1", "4000::1"),
        *("100.64.0.1", "0.0.0.0", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    ],
)
def test_an_address_that_leads_elsewhere_than_the_internet_is_refused(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(OutputRefusedError, match="private IP address"):
        check(f"https://{host}/a.png")


@pytest.mark.parametrize("address", ["64:ff9b::93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14"])
def test_a_network_without_ipv4_reaches_a_public_host(address: str) -> None:
    assert allows(f"https://[{address}]/a.png")


PRIVATE_NAMES = [
    *("localhost", "LOCALHOST", "localhost.", "x.localhost", "ip6-localhost", "intranet", "metadata"),
    *("metadata.google.internal", "metadata.google.internal.", "db.internal", "nas.local", "nas.local."),
    *("printer.lan", "router.home.arpa", "git.corp", "wiki.intranet", "svc.cluster.local"),
    *("2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "017700000001", "127.1", "127.0.1", "0177.0.0.1"),
    *("1.2.3.4.5", "127.0.0.1.", "10.1", "a.0x1", "134744072", "0x"),
    *("127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "\uff11\uff12\uff17.1", "localhost\u3002"),
    *("\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3", "nas\uff61local", "db\u3002internal"),
    *("loc%61lhost", "%31%32%37.1", "a b.example", "a..example"),
]


@pytest.mark.parametrize("host", PRIVATE_NAMES)
def test_behind_a_proxy_the_name_of_a_private_host_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the proxy resolves it, and this machine cannot see to what."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    with pytest.raises(OutputError) as caught:
        check(f"https://{host}/a.png")
    assert type(caught.value) is OutputRefusedError or "does not resolve" in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "cdn.example",
        "cdn.example.",
        "d2h7xmz5gqybh9.cloudfront.net",
        "local.cdn.example",
        "b\u00fccher.example",
    ],
)
def test_behind_a_proxy_any_public_name_is_allowed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    check(f"https://{host}/a.png")


def test_behind_a_proxy_a_private_name_is_allowed_where_the_api_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    check("https://files.internal/a.png", api="https://gateway.internal")
    with pytest.raises(OutputRefusedError):
        check("https://files.internal/a.png", api="https://unknown.example")
