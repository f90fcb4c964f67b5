"""Routes for operators and their machines; `urlpatterns` are mounted under /api/v1/."""

from django.urls import URLPattern
from django.urls import path as plain_path
from dmr.routing import path

from monitoring.api import HistoryController, SummaryController
from monitoring.exposition import metrics
from monitoring.health import live, ready

urlpatterns: list[URLPattern] = [
    path("metrics/summary", SummaryController.as_view(), name="metrics-summary"),
    path("metrics/history", HistoryController.as_view(), name="metrics-history"),
]
health_urls: list[URLPattern] = [
    plain_path("health/live", live, name="health-live"),
    plain_path("health/ready", ready, name="health-ready"),
    plain_path("metrics", metrics, name="metrics"),
]
