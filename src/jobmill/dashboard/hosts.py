"""By which names a dashboard may be asked, and from where without a login."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_LOCAL: Final = frozenset({"localhost", "ip6-localhost"})


class Hosts:
    """The names that a Host header may have.

    An address of numbers is none that a foreign page could have made a browser believe in, so it
    is always allowed, and so is localhost; `more` are others, `*` is any.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._more = frozenset(name.lower().rstrip(".") for name in more)

    def allows(self, header: str) -> bool:
        """Whether the Host header is one of them."""
        if "*" in self._more:
            return True
        name = _name(header)
        return name in self._more or name in _LOCAL or _address(name) is not None


def is_same_site(origin: str, host: str, scheme: str) -> bool:
    """Whether an Origin header is of the very site that was asked."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    # Behind a proxy that speaks TLS the app itself may have been asked without.
    return parts.netloc.lower() == host.lower() and parts.scheme in {scheme, "https"}


def is_loopback(host: str | None) -> bool:
    """Whether the address, or the name, is of this machine alone; a socket's path is."""
    if not host or host in _LOCAL or host.startswith("/"):
        return bool(host)
    address = _address(host.strip("[]"))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address is not None and address.is_loopback


def _name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().rstrip(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
