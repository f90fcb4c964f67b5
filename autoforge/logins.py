"""Failed logins are throttled by address: wrong API keys and wrong passwords alike."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest, HttpResponse

from autoforge.errors import RateLimited
from autoforge.throttling import Policy, refusal, throttle


def require_few_failures(address: str) -> None:
    """Raises RateLimited when too many logins from `address` failed within the last minute."""
    if quota := throttle.is_shut(_policy(address)):
        raise refusal(quota)


def note_failure(address: str) -> None:
    """Count a failed login from `address`; without one ("") it is nobody's."""
    policy = _policy(address)
    if address and policy.per_min:
        throttle.ask(policy)


def address_of(request: HttpRequest) -> str:
    """The client's address; behind a proxy what that says, which is the last to add to the header."""
    address: str = request.META.get("REMOTE_ADDR") or ""
    if settings.BEHIND_PROXY:
        address = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip() or address
    return address


def login(request: HttpRequest) -> HttpResponse:
    """The admin's login form, for addresses that have not failed too often."""
    if request.method == "POST":
        try:
            require_few_failures(address_of(request))
        except RateLimited as error:
            return HttpResponse(
                error.detail, status=error.status, content_type="text/plain", headers=error.headers
            )
    return admin.site.login(request)


def connect() -> None:
    """Count the wrong passwords of login forms."""
    user_login_failed.connect(_count_wrong_password, dispatch_uid="autoforge.logins")


def _count_wrong_password(sender: object, request: HttpRequest | None = None, **_: Any) -> None:
    if request is not None:
        note_failure(address_of(request))


def _policy(address: str) -> Policy:
    return Policy("failed-logins", _network(address), settings.FAILED_LOGINS_PER_MIN)


def _network(address: str) -> str:
    """An IPv6 client has 2**64 addresses: they count as one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
