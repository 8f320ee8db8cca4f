"""Check which addresses we may talk to on a customer's behalf.

A customer names hosts (`endpoint_url`) that our machines then connect to. Without a check, customers
could reach hosts that only our network can see. The connector itself resolves the name through
`GuardedResolver`, so the connection goes to the very address that was checked.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType
from aiohttp import TraceConfig, TraceRequestRedirectParams
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from blocks.domain.errors import AddressRefused, RedirectRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# ipaddress takes these for public, in all or some versions of Python, and they are not.
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"),  # IETF protocol assignments; Oracle's metadata server
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's wire server
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of a local network, RFC 8215
    ipaddress.ip_network("fec0::/10"),  # site-local, RFC 3879
    ipaddress.ip_network("::/96"),  # IPv4-compatible, RFC 4291
    ipaddress.ip_network("::ffff:0:0:0/96"),  # IPv4-translated, of SIIT, RFC 7915
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4, RFC 7526
    ipaddress.ip_network("3fff::/20"),  # documentation, RFC 9637
    ipaddress.ip_network("5f00::/16"),  # segment routing, RFC 9602
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65_535
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


class Egress:
    """The rule: public addresses, and whatever `allow` names.

    `allow` is a list of host names, addresses and networks in CIDR notation, separated by commas,
    each for all ports or with one: `store.internal`, `10.0.0.0/8`, `127.0.0.1:9000`, `[::1]:9000`.

    Raises:
        ValueError: a port is not a number from 1 to 65,535.
    """

    def __init__(self, allow: str = "") -> None:
        self._hosts: set[tuple[str, int | None]] = set()
        self._networks: list[tuple[Network, int | None]] = []
        for entry in filter(None, (part.strip() for part in allow.split(","))):
            name, port = _split_port(entry)
            try:
                self._networks.append((ipaddress.ip_network(name, strict=False), port))
            except ValueError:
                self._hosts.add((name.lower(), port))

    def check_address(self, host: str, text: str, port: int) -> None:
        """Pass if `port` of the address `text`, to which `host` resolved, may be connected to.

        Raises:
            AddressRefused: it is private, loopback, link-local or otherwise not public.
        """
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if not self._allows(host, address, port) and not _is_public(address):
            raise AddressRefused(
                f"{host} is at {address}, which is not a public address; an operator can allow it, "
                f"or its port {port} alone, with REFINERY_EGRESS_ALLOW."
            )

    def _allows(self, host: str, address: Address, port: int) -> bool:
        ports = (None, port)
        return any((host.lower(), allowed) in self._hosts for allowed in ports) or any(
            address in network and allowed in ports for network, allowed in self._networks
        )

    def check_url(self, url: str) -> None:
        """Pass if every address of the host in `url` may be connected to.

        Raises:
            AddressRefused: one of them may not, or the host does not resolve.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
            found = socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise AddressRefused("The host of the endpoint cannot be resolved.") from error
        for *_, sockaddr in found:
            self.check_address(host, str(sockaddr[0]), port)


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split an entry into its name and its port; an IPv6 address has brackets if it has a port."""
    name, colon, port = entry.rpartition(":")
    is_bracketed = name.startswith("[") and name.endswith("]")
    if not colon or (":" in name and not is_bracketed):
        return entry.removeprefix("[").removesuffix("]"), None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _PORT_MAX):
        raise ValueError(f"REFINERY_EGRESS_ALLOW: {entry!r} has no port from 1 to {_PORT_MAX}.")
    return name.removeprefix("[").removesuffix("]"), int(port)


def _is_public(address: Address) -> bool:
    """Return True for a public address, also where it is wrapped in another one."""
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner and not _is_public(inner):
            return False
    return address.is_global and not address.is_multicast


def make_redirect_guard() -> TraceConfig:
    """Return a trace that has an aiohttp client raise `RedirectRefused` instead of following one.

    A store needs no redirects, and the headers of a request are not for the host that an answer names:
    aiohttp would remove `Authorization`, but not `X-Amz-Security-Token`.
    """
    tracing = TraceConfig()
    tracing.on_request_redirect.append(_refuse_redirect)
    tracing.freeze()  # a client does so too, but not with one that is added later
    return tracing


async def _refuse_redirect(_: object, __: object, redirect: TraceRequestRedirectParams) -> None:
    # Without a location it is an answer: with it S3 says that the region is wrong, and GCS that an
    # upload is not yet complete.
    if {"Location", "URI"} & set(redirect.response.headers):
        redirect.response.close()
        raise RedirectRefused(
            f"The store answered {redirect.response.status}, a redirect to another address, and those "
            "are not followed: name the store's own address as the endpoint, and the bucket's region."
        )


class GuardedResolver(AbstractResolver):
    """A resolver for aiohttp that refuses what `egress` refuses.

    aiohttp asks no resolver about a literal address, such as the target of a redirect: those are
    checked where the socket is made.
    """

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._resolver: ThreadedResolver | None = None
        self._checked: set[tuple[str, int]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Made here and not in __init__, because it wants the running loop.
        self._resolver = self._resolver or ThreadedResolver()
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            self._egress.check_address(host, result["host"], port)
            self._checked.add((result["host"], port))
        return found

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for an address that was checked, or passes now; aiohttp's `socket_factory`."""
        family, kind, protocol, _, address = info
        host, port = str(address[0]), int(address[1])
        if (host, port) not in self._checked:
            self._egress.check_address(host, host, port)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        if self._resolver:
            await self._resolver.close()
