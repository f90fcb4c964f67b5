"""What happens when a server process starts and stops, under uvicorn's lifespan protocol and under daphne."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from autoforge.http import daphne
from autoforge.http.asgi import Receive, Scope, Send

logger = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]


class Lifespan:
    """Startup steps in order, shutdown steps in order; a shutdown step that fails stops no other."""

    def __init__(self, *, startup: Sequence[Step] = (), shutdown: Sequence[Step] = ()) -> None:
        self._startup = startup
        self._shutdown = shutdown
        daphne.when_running(self.start)
        daphne.before_shutdown(self.stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        try:
            await self.start()
        except Exception as error:
            logger.exception("The start failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Every startup step; the first failure stops the start."""
        for step in self._startup:
            await step()

    async def stop(self) -> None:
        """Every shutdown step; failures are logged."""
        for step in self._shutdown:
            try:
                await step()
            except Exception:
                logger.exception("A step of the shutdown failed")
