"""What it costs to be watched: a request more to count, a scrape, the summary of the dashboard."""

from collections.abc import Callable

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import resolve
from prometheus_client import generate_latest

from autoforge.http.metrics import RequestMetrics
from monitoring.exposition import registry
from monitoring.summary import installation_summary

pytestmark = pytest.mark.benchmark(group="Metrics")


@pytest.fixture
def count_request() -> Callable[[], object]:
    """Both halves of the middleware that counts."""
    request, response = RequestFactory().get("/api/v1/prompts"), HttpResponse(b"{}")
    request.resolver_match = resolve("/api/v1/prompts")
    middleware = RequestMetrics(lambda _: response)

    def count() -> object:
        middleware.process_request(request)
        return middleware.process_response(request, response)

    return count


def test_count_a_request(benchmark, count_request):
    assert benchmark(count_request).status_code == 200


def test_scrape(benchmark, count_request):
    count_request()
    assert b"autoforge_http_request_seconds_bucket" in benchmark(lambda: generate_latest(registry()))


def test_summary(benchmark, count_request):
    count_request()
    assert benchmark(installation_summary)["http"]["requests"] >= 1
