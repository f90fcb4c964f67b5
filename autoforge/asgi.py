"""The ASGI entry point: one-hop HTTP, static files, WebSockets to Channels, start and stop."""

import gc
import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
get_asgi_application()  # sets Django up; its handler is not used

from channels.routing import ProtocolTypeRouter  # noqa: E402  after Django is set up
from django.conf import settings  # noqa: E402  after Django is set up
from django.urls import get_resolver  # noqa: E402  after Django is set up

from autoforge.db.pool import close_pools  # noqa: E402  after Django is set up
from autoforge.http import HttpApplication, Lifespan, StaticFiles  # noqa: E402  after Django is set up
from autoforge.http.asgi import Receive, Scope, Send  # noqa: E402  after Django is set up
from monitoring.memory import guard  # noqa: E402  after Django is set up
from monitoring.summary import installation_summary  # noqa: E402  after Django is set up
from monitoring.system import sampler, watch_loop  # noqa: E402  after Django is set up
from monitoring.tasks import housekeeper  # noqa: E402  after Django is set up
from realtime.routing import admit_if, websocket_application  # noqa: E402  after Django is set up
from realtime.topics import register_source  # noqa: E402  after Django is set up

# Views that wait for a model or stream must not hold one of the few HTTP threads.
ASYNC_PREFIXES = ("/api/v1/completions", "/api/v1/stream", "/v1/")
MODEL_CHECKS = ("/api/v1/models/", "/check")


def is_async(path: str) -> bool:
    """Whether the view behind `path` is awaited on the loop."""
    return path.startswith(ASYNC_PREFIXES) or (
        path.startswith(MODEL_CHECKS[0]) and path.endswith(MODEL_CHECKS[1])
    )


pages = HttpApplication(is_async=is_async)
static = StaticFiles()
STATIC_PREFIX = settings.STATIC_URL


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    """Static files by their prefix, everything else to Django."""
    application = static if scope["path"].startswith(STATIC_PREFIX) else pages
    await application(scope, receive, send)


async def _close_pools() -> None:
    close_pools()


async def _watch() -> None:
    sampler.add(pages.sample)
    sampler.start("web")
    guard.start("web")
    if settings.EXECUTOR == "inprocess":
        housekeeper.start()
    await watch_loop()


async def _settle() -> None:
    """Load the views now, not in the first request, and keep the collector from what stays for ever.

    Going through all of it takes 0.1 s, in which nobody is answered.
    """
    assert get_resolver().url_patterns
    gc.collect()
    gc.freeze()


register_source("metrics", installation_summary)
admit_if(guard.admits)
lifespan = Lifespan(startup=[_settle, _watch], shutdown=[pages.close, _close_pools])
application = ProtocolTypeRouter({"http": http, "websocket": websocket_application, "lifespan": lifespan})
