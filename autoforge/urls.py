"""The composition root of HTTP: mounts every app."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from dmr.openapi import build_schema
from dmr.openapi.views import OpenAPIJsonView, RedocView
from dmr.routing import Router

from autoforge.errors import unknown_url
from autoforge.logins import login
from evaluations.urls import urlpatterns as evaluations_urls
from monitoring.urls import health_urls
from monitoring.urls import urlpatterns as monitoring_urls
from prompts.urls import urlpatterns as prompts_urls
from realtime.urls import page_urls
from realtime.urls import urlpatterns as realtime_urls

api = Router("api/v1/", [*prompts_urls, *evaluations_urls, *realtime_urls, *monitoring_urls])
schema = build_schema(api)

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/openapi.json", OpenAPIJsonView.as_view(schema), name="openapi"),
    path("api/docs", RedocView.as_view(schema), name="api-docs"),
    api.to_urlpatterns(),
    re_path(r"^api/v1(?:/|$)", unknown_url),
    path("v1/", include("prompts.compat.openai.urls")),
    path("api/public/", include("evaluations.compat.langfuse.urls")),
    path("api/public/", include("prompts.compat.langfuse.urls")),
    *health_urls,
    *page_urls,
    path("admin/login/", login),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]

handler400 = "autoforge.errors.bad_request"
handler404 = "autoforge.errors.not_found"
handler500 = "autoforge.errors.server_error"
