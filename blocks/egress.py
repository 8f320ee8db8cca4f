"""Which addresses we may talk to on a customer's behalf.

A customer names hosts (`endpoint_url`) that our machines then connect to. Without a check, that is
a way to reach what only our network can see. The name is resolved by the connector itself through
`GuardedResolver`, so the connection goes to the very address that was checked.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from blocks.errors import AddressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What ipaddress takes for public, in all or in some versions of Python, and is not.
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"),  # IETF protocol assignments; Oracle's metadata server
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's wire server
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of a local network, RFC 8215
    ipaddress.ip_network("fec0::/10"),  # site-local, RFC 3879
    ipaddress.ip_network("::/96"),  # IPv4-compatible, RFC 4291
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


class Egress:
    """The rule: public addresses, and whatever `allow` names.

    `allow` is a list of host names, addresses and networks in CIDR notation, separated by commas.
    """

    def __init__(self, allow: str = "") -> None:
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in filter(None, (part.strip() for part in allow.split(","))):
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(entry.lower())

    def check_address(self, host: str, text: str) -> None:
        """Pass if the address `text`, to which `host` resolved, may be connected to.

        Raises:
            AddressRefused: it is private, loopback, link-local or otherwise not public.
        """
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        allowed = host.lower() in self._hosts or any(address in net for net in self._networks)
        if not allowed and not _is_public(address):
            raise AddressRefused(
                f"{host} is at {address}, which is not a public address; an operator can allow it "
                "with REFINERY_EGRESS_ALLOW."
            )

    def check_url(self, url: str) -> None:
        """Pass if every address of the host in `url` may be connected to.

        Raises:
            AddressRefused: one of them may not, or the host does not resolve.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            found = socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise AddressRefused("The host of the endpoint cannot be resolved.") from error
        for *_, sockaddr in found:
            self.check_address(host, str(sockaddr[0]))


def _is_public(address: Address) -> bool:
    """Whether it is an address of the internet at large, whatever it is wrapped in."""
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner and not _is_public(inner):
            return False
    return address.is_global and not address.is_multicast


class GuardedResolver(AbstractResolver):
    """Resolves a name for aiohttp, and refuses what `egress` refuses.

    aiohttp asks no resolver about a literal address, such as one that a redirect leads to: those are
    checked where the socket is made.
    """

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._resolver: ThreadedResolver | None = None
        self._checked: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Made here and not in __init__, because it wants the running loop.
        self._resolver = self._resolver or ThreadedResolver()
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            self._egress.check_address(host, result["host"])
            self._checked.add(result["host"])
        return found

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for an address that was checked, or that passes now; aiohttp's `socket_factory`."""
        family, kind, protocol, _, address = info
        host = str(address[0])
        if host not in self._checked:
            self._egress.check_address(host, host)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        if self._resolver:
            await self._resolver.close()
