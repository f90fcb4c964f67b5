"""`/metrics`: everything that was counted, in Prometheus' text format."""

import os
import secrets
from collections import defaultdict
from ipaddress import ip_address
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.samples import Sample

from autoforge.errors import Forbidden, NotAuthenticated, problem_response
from monitoring.multiprocess import AllProcesses

_FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All processes' metrics when they share PROMETHEUS_MULTIPROC_DIR, else this one's."""
    try:
        _authorise(request)
    except (Forbidden, NotAuthenticated) as error:
        return problem_response(error)
    return HttpResponse(generate_latest(registry()), content_type=CONTENT_TYPE_LATEST)


def _authorise(request: HttpRequest) -> None:
    if not settings.METRICS_TOKEN:
        if not _is_direct_loopback(request):
            raise Forbidden("Set AUTOFORGE_METRICS_TOKEN to read metrics from another machine.")
        return
    sent = request.headers.get("Authorization", "")
    if not secrets.compare_digest(sent.encode(), f"Bearer {settings.METRICS_TOKEN}".encode()):
        raise NotAuthenticated("Send AUTOFORGE_METRICS_TOKEN as 'Authorization: Bearer …'.")


def _is_direct_loopback(request: HttpRequest) -> bool:
    """A proxy on this machine would make everybody look local: its headers give it away."""
    if any(name in request.headers for name in _FORWARDING_HEADERS):
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def registry() -> CollectorRegistry:
    """This process's metrics, or with PROMETHEUS_MULTIPROC_DIR those of all processes."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return REGISTRY
    together = CollectorRegistry()
    AllProcesses(together, Path(folder))
    return together


def samples_by_name() -> dict[str, list[Sample]]:
    """What `/metrics` says, by the names of the samples; unknown names have none."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for metric in registry().collect():
        for sample in metric.samples:
            samples[sample.name].append(sample)
    return samples
