"""Which addresses a page and a stream may go to: by what they mean, however they are written."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.allow import Allowed, check_page, check_rtmp
from config.load import load
from config.model import Egress
from supervisor.errors import Rejected

DEFAULT = load(None).egress


def settings(*hosts: str, private: bool = False) -> Egress:
    return msgspec.structs.replace(DEFAULT, page_hosts=list(hosts), page_private=private)


def allowed(url: str, *hosts: str, private: bool = False) -> bool:
    return Allowed(lambda: settings(*(hosts or ("*",)), private=private)).url(url)


PUBLIC = [
    "example.com",
    "EXAMPLE.com",
    "example.com.",
    "a.b.example.com:8443",
    "your_freestyle_canvas.good.example",
    "bücher.example",
    "xn--bcher-kva.example",
    "93.184.216.34",
    "1572395042",
    "0x5db8d822",
    "[2606:2800:220:1:248:1893:25c8:1946]",
    # A name that begins with a digit is a name.
    "9to5.example",
    "3com.example.com",
    "1.2.3.4.example",
    "0xcafe.example",
    "localhost.example.com",
    "user@example.com",
    "127.0.0.1@example.com",
    "user:127.0.0.1@example.com",
]
PRIVATE = [
    "localhost",
    "LocalHost",
    "localhost.",
    "localhost..",
    "a.localhost",
    "a.localhost.",
    "printer.local",
    "db.internal",
    "db.internal.",
    "nas.home.arpa",
    "localhost.localdomain",
    # Without a dot it means something in a network of our own alone.
    "intranet",
    "router:8080",
    # 127.0.0.1 in its spellings (WHATWG URL, "IPv4 parser").
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "2130706433.",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0X7F.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "00000177.1",
    "127.0.0.1:9222",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "127。0。0。1",
    "127．0．0．1",
    "ⓛocalhost",
    "%6cocalhost",
    "localhost%2e",
    # Others that are nobody's on the internet.
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0xa9fea9fe",
    "2852039166",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:192.168.1.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[ff02::1]",
    # Who comes before the host is no host.
    "example.com@127.0.0.1",
    "example.com:80@127.0.0.1",
    "example.com%40@127.0.0.1",
    "example.com@example.com@localhost",
    # What reads as numbers and is no address is none that we know.
    "256.256.256.256",
    "1.2.3.4.5",
    "0x100000000",
    "08.0.0.1",
]


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("host", PUBLIC)
def test_an_address_of_the_internet_is_allowed(host: str, scheme: str) -> None:
    assert allowed(f"{scheme}://{host}/a?b#c")


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_of_our_own_is_not(host: str) -> None:
    assert not allowed(f"http://{host}/")
    assert not allowed(f"ws://{host}")
    with pytest.raises(Rejected, match=r"^payload\.url: ") as refused:
        check_page(f"http://{host}/", settings("*"))
    assert refused.value.code == "invalid"


@pytest.mark.parametrize(
    "url",
    [
        # Browsers read `\` as `/`: the host is what comes before it.
        "http://127.0.0.1\\@example.com/",
        "http:\\\\127.0.0.1/",
        "http://example.com\\.localhost/",
        "http:/127.0.0.1/",
        "http:127.0.0.1",
        "//127.0.0.1/",
        "http://127.0.0.1 .example.com/",
        "http://[::1/",
        "http://[::1].example.com/",
        "http://example.com:port/",
        "http://",
        "http:///etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/",
        "chrome://settings",
        "view-source:http://example.com/",
        "javascript:alert(1)",
        "",
        "example.com",
    ],
)
def test_what_is_no_address_of_a_page(url: str) -> None:
    with pytest.raises(Rejected, match=r"^payload\.url: "):
        check_page(url, settings("*"))


@pytest.mark.parametrize("url", ["http://example.com/\0", "http://example.com/\n", "\thttp://a.b/"])
def test_an_address_is_printable(url: str) -> None:
    with pytest.raises(Rejected, match=r"^payload\.url: "):
        check_page(url, settings("*"))


def test_a_page_may_use_what_it_has_itself() -> None:
    for url in ("data:text/html,<p>x y</p>", "blob:http://example.com/1", "about:blank"):
        assert allowed(url, "example.com")


def test_a_page_on_this_machine_must_be_named_or_allowed_for_all() -> None:
    assert allowed("http://127.0.0.1:8000/", "127.0.0.1")
    assert allowed("http://127.0.0.1:8000/", "*", "127.0.0.1")
    assert allowed("http://127.0.0.1:8000/", private=True)
    assert not allowed("http://localhost/", "127.0.0.1")
    assert not allowed("http://example.com/", "127.0.0.1")


def test_names_of_hosts_may_have_a_wildcard() -> None:
    hosts = ("*.example.com", "Other.example")
    for url in ("http://a.example.com/", "http://A.Example.COM./", "wss://other.example/"):
        assert allowed(url, *hosts), url
    for url in ("http://example.com/", "http://aexample.com/", "http://a.example.com.evil.test/"):
        assert not allowed(url, *hosts), url


def test_the_list_is_the_one_in_force_when_it_is_asked() -> None:
    now = settings("a.example")
    asked = Allowed(lambda: now)
    assert not asked.url("http://b.example/")
    now = settings("b.example")
    assert asked.url("http://b.example/")


addresses = st.ip_addresses(v=4)


@given(addresses, st.sampled_from(["", "."]))
def test_every_spelling_of_an_address_means_the_same(address: object, dot: str) -> None:
    number = int(address)  # type: ignore[call-overload]
    a, b, c, d = number.to_bytes(4, "big")
    spellings = [
        f"{a}.{b}.{c}.{d}",
        f"{a}.{b}.{c * 256 + d}",
        f"{a}.{number & 0xFFFFFF}",
        f"{number}",
        f"{number:#x}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
    ]
    assert len({allowed(f"http://{text}{dot}/") for text in spellings}) == 1


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_answered(text: str, host: str) -> None:
    allowed(text)
    allowed(f"http://{host}/{text}")
    with pytest.raises(Rejected):
        check_page(text.replace("http", ""), settings("*"))


# -- streams ------------------------------------------------------------------------

HOSTS = ["live.example.com", "*.cdn.example.com"]


@pytest.mark.parametrize(
    "url",
    [
        "rtmp://live.example.com/app/key",
        "RTMPS://LIVE.example.com:443/app/key?sign=a%20b",
        "rtmp://a.cdn.example.com/app",
        "rtmp://user:pass@live.example.com/app",
    ],
)
def test_a_stream_goes_where_it_is_allowed(url: str) -> None:
    check_rtmp(url, HOSTS)
    check_rtmp(url, ["*"])
    with pytest.raises(Rejected, match=r"^payload\.rtmp_dst: .* is not in egress\.rtmp_hosts"):
        check_rtmp(url, ["other.example"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "live.example.com/app",
        "http://live.example.com/app",
        "file:///etc/passwd",
        "rtmp:///app",
        "rtmp://",
        "pipe:1",
        "-f",
        "rtmp://[::1/app",
        "concat:rtmp://live.example.com/a|/etc/passwd",
        "rtmp://live.example.com/app\0/key",
        "rtmp://live.example.com/app\nkey",
        "rtmp://live.example.com\\@other.example/app",
    ],
)
def test_what_is_no_rtmp_address(url: str) -> None:
    with pytest.raises(Rejected, match=r"^payload\.rtmp_dst: expected rtmp") as refused:
        check_rtmp(url, ["*"])
    assert refused.value.code == "invalid"
