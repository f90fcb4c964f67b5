"""Routes for operators and their machines; `urlpatterns` are mounted under /api/v1/."""

from django.urls import URLPattern, path

from monitoring.exposition import metrics
from monitoring.health import live, ready

urlpatterns: list[URLPattern] = []
health_urls: list[URLPattern] = [
    path("health/live", live, name="health-live"),
    path("health/ready", ready, name="health-ready"),
    path("metrics", metrics, name="metrics"),
]
