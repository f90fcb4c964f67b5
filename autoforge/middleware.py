"""Middleware that does for a request with an API key only what it needs: the rest is for browsers."""

from typing import Any

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponseBase

API_PREFIXES = ("/api/v1/", "/v1/", "/api/public/")
# Answers of the API are data: nothing in them may be loaded or run, whatever a browser takes them for.
API_POLICY = "default-src 'none'; frame-ancestors 'none'"


def is_api(request: HttpRequest) -> bool:
    """Whether `request` goes to the REST API, whose answers no browser shows as pages."""
    return request.path_info.startswith(API_PREFIXES)


def brings_key(request: HttpRequest) -> bool:
    """Whether `request` comes with a key to the API: then no middleware asks the database or a cache."""
    return "HTTP_AUTHORIZATION" in request.META and is_api(request)


class _NotForKeys:
    """A request that brings its own key has no session, so it gets no `session`, `user` and messages."""

    def process_request(self, request: HttpRequest) -> Any:
        if brings_key(request):
            return None
        return super().process_request(request)  # type: ignore[misc]  # a mixin of middleware


class Sessions(_NotForKeys, SessionMiddleware):
    """Django's, for browsers."""


class Authentication(_NotForKeys, AuthenticationMiddleware):
    """Django's, for browsers."""


class Messages(_NotForKeys, MessageMiddleware):
    """Django's, for browsers."""


class ContentSecurityPolicy(CSPMiddleware):
    """django-csp, which builds the policy anew for every response, for pages."""

    def process_request(self, request: HttpRequest) -> None:
        if not is_api(request):
            super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not is_api(request):
            return super().process_response(request, response)
        response.headers.setdefault(HEADER, API_POLICY)
        return response
