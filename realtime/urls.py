"""REST routes of this app, mounted under /api/v1/, and its page."""

from django.urls import URLPattern, path

from realtime.api import TicketsController
from realtime.pages import live_run

urlpatterns: list[URLPattern] = [path("ws-tickets", TicketsController.as_view(), name="ws-tickets")]
page_urls: list[URLPattern] = [path("live/<uuid:run_id>", live_run, name="live-run")]
