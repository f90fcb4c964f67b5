"""REST routes of this app, mounted under /api/v1/."""

from django.urls import URLPattern, path

from realtime.api import TicketsController

urlpatterns: list[URLPattern] = [path("ws-tickets", TicketsController.as_view(), name="ws-tickets")]
