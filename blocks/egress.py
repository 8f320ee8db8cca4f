"""Which addresses we may talk to on a customer's behalf.

A customer names hosts (`endpoint_url`) that our machines then connect to. Without a check, that is
a way to reach what only our network can see. The name is resolved by the connector itself through
`GuardedResolver`, so the connection goes to the very address that was checked.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from blocks.errors import AddressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
        if not allowed and (not address.is_global or address.is_multicast):
            raise AddressRefused(
                f"{host} is at {address}, which is not a public address; an operator can allow it "
                "with REFINERY_EGRESS_ALLOW."
            )

    def check_url(self, url: str) -> None:
        """Pass if every address of the host in `url` may be connected to.

        Raises:
            AddressRefused: one of them may not, or the host does not resolve.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            found = socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise AddressRefused(f"The host {host!r} cannot be resolved.") from error
        for *_, sockaddr in found:
            self.check_address(host, str(sockaddr[0]))


class GuardedResolver(AbstractResolver):
    """Resolves a name for aiohttp, and refuses what `egress` refuses."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._resolver: ThreadedResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Made here and not in __init__, because it wants the running loop.
        self._resolver = self._resolver or ThreadedResolver()
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            self._egress.check_address(host, result["host"])
        return found

    async def close(self) -> None:
        if self._resolver:
            await self._resolver.close()
