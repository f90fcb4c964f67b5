"""Keeps calls of model endpoints out of the private network (server-side request forgery)."""

import ipaddress
import socket
from typing import Any

from yarl import URL

REFUSED = "The model's base URL leads to a loopback, link-local, private or reserved address."
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".localdomain")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BlockedAddressError(OSError):
    """A connection to an address that endpoints may not use."""

    def __init__(self) -> None:
        super().__init__(REFUSED)


def is_public(address: str) -> bool:
    """Whether a numeric address is a public unicast one, looking inside IPv6 forms of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = _embedded_ipv4(ip)
        if embedded is not None:
            ip = embedded
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    # Teredo (second field) and NAT64 carry the target; ::/96 are the old compatible addresses.
    if ip.teredo:
        return ip.teredo[1]
    if ip in _NAT64 or int(ip) >> 32 == 0:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def public_socket(addr_info: Any) -> socket.socket:
    """A socket for `addr_info` (as of getaddrinfo), if it is public. Raises BlockedAddressError.

    aiohttp calls this for every connection with the address it is about to use: literals, resolved
    names and a name that resolves differently the second time all pass here.
    """
    family, kind, protocol, _, sockaddr = addr_info
    if not is_public(str(sockaddr[0])):
        raise BlockedAddressError
    return socket.socket(family=family, type=kind, proto=protocol)


def check_base_url(url: str, *, allow_private: bool = False) -> None:
    """Raises ValueError with a sentence if no endpoint may live at `url`.

    Names are not resolved here: what they resolve to is checked at each connection.
    """
    parsed = _parsed(url)
    host = (parsed.host or "").rstrip(".").lower()
    if allow_private:
        return
    if "." not in host and ":" not in host and not _numeric(host):
        raise ValueError(f"The base URL's host {host!r} is a name of the local network.")
    if host == "localhost" or host.endswith(_LOCAL_SUFFIXES):
        raise ValueError(REFUSED)
    address = _numeric(host)
    if address and not is_public(address):
        raise ValueError(REFUSED)


def _parsed(url: str) -> URL:
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise ValueError(f"The base URL {url[:200]!r} is not a URL.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or not port:
        raise ValueError("The base URL must begin with http:// or https:// and name a host.")
    if parsed.user or parsed.password:
        raise ValueError("The base URL must not contain a user or password: use api_key.")
    if parsed.query_string or parsed.fragment:
        raise ValueError("The base URL must not contain a query or fragment.")
    return parsed


def _numeric(host: str) -> str | None:
    """The address a literal means, also as 2130706433, 0x7f.1 or 127.1; None for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None
