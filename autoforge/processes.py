"""The processes of an installation: web (uvicorn or daphne), worker and beat (Celery)."""

import gc
import math
import signal
import socket
import sys
from importlib import import_module
from typing import Any

import uvicorn
from django.conf import settings

from autoforge.acceptor import Acceptor
from autoforge.readiness import tell_ready

# WebSocket keep-alive: ping every 20 s, close peers silent for 60 s.
PING_INTERVAL_S, PING_TIMEOUT_S = 20, 40
# A frame up to this many times too long is answered with an error, a longer one with the end (1009).
MAX_FRAMES = 5
# daphne drops who is not answered within 5 s by itself: too little for a crowd that comes at once.
HANDSHAKE_S = 20
# While the event loop serves a crowd, a thread that answers a request waits this long each time it wants to
# go on: with Python's 5 ms a few queries take 0.1 s. Measured: 1 ms costs REST nothing, 0.5 ms costs 5 %.
SWITCH_INTERVAL_S = 0.001
APPLICATION = "autoforge.asgi:application"


class _Uvicorn(uvicorn.Server):
    """Says that it is ready once its socket accepts connections."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(None if sockets is None else [])
        if self.started and sockets:
            acceptors: Any = [Acceptor(listener, self._new_protocol) for listener in sockets]
            self.servers += acceptors
        if self.started:
            tell_ready()
        if self.started and sockets is None:
            print(f"ready http://127.0.0.1:{self.config.port}", flush=True)  # noqa: T201  the promise

    def _new_protocol(self) -> Any:
        """What uvicorn makes for each connection that it accepts itself."""
        new: Any = self.config.http_protocol_class
        return new(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def shutdown_s() -> int:
    """Whole seconds that requests in flight have to end when a process is told to stop."""
    return math.ceil(settings.HTTP_SHUTDOWN_S)


def run_uvicorn(*, host: str = "127.0.0.1", port: int = 0, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT: on `listener` when given, else on host and port."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = uvicorn.Config(
        APPLICATION,
        host=host,
        port=port,
        ws="realtime.lean:LeanProtocol",
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_max_size=settings.WS_MAX_FRAME_BYTES * MAX_FRAMES,
        timeout_graceful_shutdown=shutdown_s(),
        proxy_headers=False,
        log_level="warning",
        access_log=False,
    )
    # uvicorn raises the signal that stopped it once more when it has stopped: by then all is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    _Uvicorn(config).run([listener] if listener else None)


def _ignore(signum: int, frame: Any) -> None:
    return


def run_daphne(listener: socket.socket) -> None:
    """The same with daphne, on a listening socket."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Imported here: daphne installs Twisted's reactor as it is imported.
    from daphne.server import Server
    from daphne.ws_protocol import WebSocketFactory
    from django.utils.module_loading import import_string

    WebSocketFactory.protocol = import_string("realtime.daphne.BoundProtocol")
    Server(
        application=import_string(APPLICATION.replace(":", ".")),
        endpoints=[f"fd:fileno={listener.fileno()}"],
        ping_interval=PING_INTERVAL_S,
        ping_timeout=PING_TIMEOUT_S,
        websocket_max_message_size=settings.WS_MAX_FRAME_BYTES * MAX_FRAMES,
        websocket_max_frame_size=settings.WS_MAX_FRAME_BYTES * MAX_FRAMES,
        websocket_timeout=-1,
        websocket_handshake_timeout=HANDSHAKE_S,
        application_close_timeout=shutdown_s(),
        verbosity=0,
    ).run()


def run_worker(name: str) -> None:
    """A Celery worker whose threads each drain one run."""
    from celery.signals import worker_ready

    from autoforge.celery import app

    worker_ready.connect(_settle)
    threads = str(settings.WORKER_THREADS)
    options = ["--pool=threads", "--concurrency", threads, "--hostname", f"{name}@%h", "--loglevel=WARNING"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])


def _settle(**_: Any) -> None:
    """Load what the first run needs, and keep the garbage collector from what stays for ever.

    Going through all of it takes 0.1 s, in which no cell of a run gets ahead.
    """
    for module in ("aiohttp", "channels_redis.core", "uvloop"):
        import_module(module)
    gc.collect()
    gc.freeze()
    tell_ready()


def run_beat() -> None:
    """Celery's clock for housekeeping; one a deployment."""
    from autoforge.celery import app

    schedule = settings.VAR_DIR / "celerybeat-schedule"
    app.start(["beat", "--loglevel=WARNING", "--schedule", str(schedule), "--pidfile="])
