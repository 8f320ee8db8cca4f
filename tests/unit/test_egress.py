"""Customers cannot make us talk to what only our network can see."""

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from api.background.webhook_sender import WebhookSender
from blocks.domain.errors import AddressRefused
from blocks.secrets.egress import Egress, GuardedResolver
from tests.support.outbound import Listener

PUBLIC = [
    "8.8.8.8",
    "52.216.0.1",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
]
REFUSED = {
    "this network": "0.0.0.0",
    "this network too": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 172, last": "172.31.255.255",
    "private 192": "192.168.1.1",
    "shared": "100.64.0.1",
    "metadata of Alibaba": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback, last": "127.255.255.254",
    "link-local": "169.254.0.1",
    "metadata": "169.254.169.254",
    "metadata of ECS": "169.254.170.2",
    "documentation": "192.0.2.1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast, global": "233.252.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "none in IPv6": "::",
    "loopback in IPv6": "::1",
    "unique local": "fc00::1",
    "unique local too": "fd12:3456::1",
    "metadata in IPv6": "fd00:ec2::254",
    "link-local in IPv6": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "multicast in IPv6": "ff02::1",
    "multicast in IPv6, global": "ff0e::1",
    "documentation in IPv6": "2001:db8::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:169.254.169.254",
    "mapped private": "::ffff:a00:1",
    "mapped multicast": "::ffff:224.0.0.1",
}
# What `ipaddress` calls global, at least in some releases of Python 3.11, and is none of the sort.
LEAKS = {
    "metadata of Oracle": "192.0.0.192",
    "metadata by NAT64": "64:ff9b::a9fe:a9fe",
    "private by NAT64": "64:ff9b::a00:1",
    "local NAT64": "64:ff9b:1::a00:1",
    "loopback by 6to4": "2002:7f00:1::",
    "private by 6to4": "2002:a00:1::1",
    "site-local": "fec0::1",
    "IPv4-compatible loopback": "::127.0.0.1",
    "wire server of Azure": "168.63.129.16",
    "translated loopback": "::ffff:0:127.0.0.1",
    "translated metadata": "::ffff:0:a9fe:a9fe",
    "translated, whatever it is": "::ffff:0:8.8.8.8",
    "relay of 6to4": "192.88.99.1",
    "relay of 6to4, mapped": "::ffff:192.88.99.1",
    "documentation of RFC 9637": "3fff::1",
    "documentation of RFC 9637, last": "3fff:fff:ffff::1",
    "segment routing": "5f00::1",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    Egress().check_address("store.example.com", address, 443)


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED.keys())
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address") as caught:
        Egress().check_address("store.example.com", address, 443)
    assert caught.value.message.startswith("store.example.com is at ")
    assert "REFINERY_EGRESS_ALLOW" in caught.value.message


@pytest.mark.parametrize("address", LEAKS.values(), ids=LEAKS.keys())
def test_addresses_that_lead_to_such_are_refused_too(address: str) -> None:
    with pytest.raises(AddressRefused):
        Egress().check_address("store.example.com", address, 443)


@pytest.mark.parametrize(
    "allow, host, address",
    [
        ("minio.internal", "minio.internal", "10.0.0.1"),
        ("minio.internal", "MinIO.Internal", "10.0.0.1"),
        ("MINIO.internal", "minio.internal", "127.0.0.1"),
        ("10.0.0.1", "minio.internal", "10.0.0.1"),
        ("10.0.0.0/24", "minio.internal", "10.0.0.255"),
        ("10.0.0.7/24", "minio.internal", "10.0.0.255"),
        ("10.0.0.0/24", "minio.internal", "::ffff:10.0.0.5"),
        ("::1", "localhost", "::1"),
        ("fd00::/8", "minio.internal", "fd12::1"),
        ("fe80::/10", "minio.internal", "fe80::1%eth0"),
        (" a.example , ,10.0.0.0/8,, ", "minio.internal", "10.9.9.9"),
        (" a.example , ,10.0.0.0/8,, ", "a.example", "192.168.0.1"),
    ],
)
def test_an_operator_can_allow_a_host_an_address_or_a_network(
    allow: str, host: str, address: str
) -> None:
    Egress(allow).check_address(host, address, 443)
    with pytest.raises(AddressRefused):
        Egress().check_address(host, address, 443)


PORTS = [
    ("127.0.0.1:9000", "store.internal", "127.0.0.1"),
    ("127.0.0.1:9000", "store.internal", "::ffff:127.0.0.1"),
    ("[::1]:9000", "localhost", "::1"),
    ("store.internal:9000", "Store.Internal", "10.0.0.1"),
    ("10.0.0.0/8:9000", "store.internal", "10.0.0.1"),
    ("[fd00::/8]:9000", "store.internal", "fd00::1"),
    ("127.0.0.1:1,127.0.0.1:9000", "store.internal", "127.0.0.1"),
]


@pytest.mark.parametrize("allow, host, address", PORTS)
def test_an_entry_with_a_port_is_for_that_port_alone(allow: str, host: str, address: str) -> None:
    Egress(allow).check_address(host, address, 9000)
    for port in (80, 443, 5432, 8888, 9001):
        with pytest.raises(AddressRefused, match=f"its port {port} alone"):
            Egress(allow).check_address(host, address, port)
    Egress(f"{allow},{host}").check_address(host, address, 5432)


@pytest.mark.parametrize(
    "url, port",
    [
        ("http://127.0.0.1", 80),
        ("https://127.0.0.1/x", 443),
        ("HTTPS://127.0.0.1/x", 443),
        ("http://127.0.0.1:9000/x", 9000),
        ("https://127.1:9000", 9000),
    ],
)
def test_the_port_of_a_url_is_checked_too(url: str, port: int) -> None:
    Egress(f"127.0.0.1:{port}").check_url(url)
    with pytest.raises(AddressRefused):
        Egress(f"127.0.0.1:{port + 1}").check_url(url)


@pytest.mark.parametrize("entry", ["a:0", "a:99999", "a:x", "127.0.0.1:", "[::1]:http", "a:٣"])
def test_an_entry_whose_port_is_none_is_no_setting(entry: str) -> None:
    with pytest.raises(ValueError, match=r"REFINERY_EGRESS_ALLOW: .* has no port from 1 to 65535"):
        Egress(f"10.0.0.0/8,{entry}")


@pytest.mark.parametrize(
    "allow, host, address",
    [
        ("minio.internal", "other.internal", "10.0.0.1"),
        ("minio.internal", "x.minio.internal", "10.0.0.1"),
        ("minio.internal", "minio.internal.evil.example", "10.0.0.1"),
        ("10.0.0.1", "minio.internal", "10.0.0.2"),
        ("10.0.0.0/24", "minio.internal", "10.0.1.0"),
        ("10.0.0.0/24", "minio.internal", "127.0.0.1"),
        ("8.8.8.8", "minio.internal", "10.0.0.1"),
        ("", "", "10.0.0.1"),
        (",", "", "10.0.0.1"),
        ("::/0", "minio.internal", "10.0.0.1"),
        ("*", "minio.internal", "10.0.0.1"),
    ],
)
def test_and_nothing_else_is_allowed_by_that(allow: str, host: str, address: str) -> None:
    with pytest.raises(AddressRefused):
        Egress(allow).check_address(host, address, 443)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:9000/x",
        "http://user:pw@127.0.0.1/",
        "http://8.8.8.8@127.0.0.1/",
        "https://[::1]:9000",
        "https://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
        "http://127.1/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
    ],
)
def test_a_url_is_refused_whatever_the_spelling_of_its_address(url: str) -> None:
    with pytest.raises(AddressRefused):
        Egress().check_url(url)


def test_a_url_of_a_public_address_is_allowed() -> None:
    Egress().check_url("https://8.8.8.8:9000/x")


def test_a_host_is_refused_if_only_one_of_its_addresses_is_private(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = ["8.8.8.8"]

    def getaddrinfo(host: str, port: int | None, **_: Any) -> list[Any]:
        assert (host, port) == ("store.example.com", 9000)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    Egress().check_url("https://Store.Example.COM:9000/bucket")
    addresses.append("10.0.0.1")
    with pytest.raises(AddressRefused):
        Egress().check_url("https://Store.Example.COM:9000/bucket")


NO_HOST = ["http://", "http:///x", "https://@/", "", "x", "http://a..b/", f"http://{'a' * 64}.com/"]


@pytest.mark.parametrize("url", NO_HOST)
def test_a_url_without_a_host_that_resolves_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AddressRefused, match="cannot be resolved"):
        Egress().check_url(url)


@pytest.mark.parametrize("url", ["http://a:99999/", "http://a:x/", "http://[::1", "http://[a]/"])
def test_a_url_that_is_malformed_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        Egress().check_url(url)


class FakeResolver:
    """A name server whose answers a customer controls."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.closed = False

    async def resolve(self, host: str, port: int, family: int) -> list[dict[str, Any]]:
        return [
            {"hostname": host, "host": text, "port": port, "family": family, "proto": 0, "flags": 0}
            for text in self.addresses
        ]

    async def close(self) -> None:
        self.closed = True


def guarded(egress: Egress, *addresses: str) -> tuple[GuardedResolver, FakeResolver]:
    resolver, fake = GuardedResolver(egress), FakeResolver(*addresses)
    resolver._resolver = fake  # type: ignore[assignment]
    return resolver, fake


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1"])
def test_the_resolver_refuses_at_the_time_of_connecting(address: str) -> None:
    for addresses in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        resolver, _ = guarded(Egress(), *addresses)
        with pytest.raises(AddressRefused):
            asyncio.run(resolver.resolve("rebind.example.com", 443))


def test_the_resolver_gives_the_very_addresses_that_were_checked() -> None:
    resolver, fake = guarded(Egress("10.0.0.0/8"), "8.8.8.8", "10.0.0.1")
    found = asyncio.run(resolver.resolve("store.example.com", 443))
    assert [(answer["host"], answer["port"]) for answer in found] == [
        ("8.8.8.8", 443),
        ("10.0.0.1", 443),
    ]
    asyncio.run(resolver.close())
    assert fake.closed


def test_a_client_with_the_resolver_does_not_even_try_to_connect_to_a_private_address() -> None:
    async def get() -> None:
        connector = aiohttp.TCPConnector(resolver=GuardedResolver(Egress()))
        async with aiohttp.ClientSession(connector=connector) as client:
            await client.get("http://localhost:1/")

    with pytest.raises(AddressRefused):  # and not that nothing listens there
        asyncio.run(get())


def test_a_client_connects_to_the_allowed_port_of_an_address_and_to_no_other() -> None:
    with Listener() as allowed, Listener() as other:
        egress = Egress(f"127.0.0.1:{allowed.port},[::1]:{allowed.port}")

        async def get(*urls: str) -> list[int]:
            resolver = GuardedResolver(egress)
            connector = aiohttp.TCPConnector(
                resolver=resolver, socket_factory=resolver.open_socket, force_close=True
            )
            async with aiohttp.ClientSession(connector=connector) as client:
                return [(await client.get(url)).status for url in urls]

        for host in ("127.0.0.1", "localhost"):
            good, bad = f"http://{host}:{allowed.port}/", f"http://{host}:{other.port}/"
            assert asyncio.run(get(good)) == [404]
            with pytest.raises(AddressRefused):
                asyncio.run(get(good, bad))
        assert not other.requests


def test_a_resolver_that_was_never_used_can_be_closed() -> None:
    asyncio.run(GuardedResolver(Egress()).close())


def test_a_webhook_goes_to_the_allowed_port_and_to_no_other() -> None:
    with Listener() as allowed, Listener() as other:
        sender = WebhookSender(Egress(f"127.0.0.1:{allowed.port}"))
        assert sender.send(f"{allowed.url}/hook", {}, b"{}").status_code == 404
        answer = sender.send(f"{other.url}/hook", {}, b"{}")
        assert "not a public address" in (answer.error or "")
        assert [path for _, path, _ in allowed.requests] == ["/hook"]
        assert not other.requests
