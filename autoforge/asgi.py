"""The ASGI entry point: HTTP to Django, WebSockets to Channels."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402  after Django is set up

from realtime.routing import websocket_application  # noqa: E402  after Django is set up

application = ProtocolTypeRouter({"http": http, "websocket": websocket_application})
