"""The process that owns the services and outlives its launcher just long enough to clean up.

The launcher holds our standard input open. When it lets go, for whatever reason, or we are asked to
end, we end the servers and remove their directory; should we be killed ourselves, the kernel ends the
servers. A signal only makes a note: an exception out of the blue could leave a lock behind that
the cleaning up needs.
"""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import FrameType

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.homes import kept_home, password_in, postgres_home, temporary_home
from autoforge.local_services.messages import Order, Started
from autoforge.local_services.postgres import Postgres
from autoforge.local_services.server import Server, Service
from autoforge.local_services.valkey import Valkey

POLL_S = 0.5
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked, _asking = os.pipe()  # readable once we are asked to end
os.set_blocking(_asking, False)


def main() -> None:
    """Carry out the order in our argument, answer with one line, stay until the launcher lets go."""
    signal.set_wakeup_fd(_asking, warn_on_full_buffer=False)
    for ending in ENDINGS:
        signal.signal(ending, note)
    order = Order.decode(sys.argv[1])
    try:
        serve(order)
    except ServiceError as error:
        reply(Started(urls={}, error=str(error)))


def serve(order: Order) -> None:
    """Run what was ordered until the launcher lets go. Raises ServiceError."""
    with ExitStack() as cleanup:
        home = cleanup.enter_context(home_for(order))
        servers = start_all(order, home, cleanup)
        urls = {name: server.url for name, server in servers.items()}
        reply(Started(urls, vanishing="" if order.data_dir else str(home)))
        while not is_released(order):
            for server in servers.values():
                server.revive()


def home_for(order: Order) -> AbstractContextManager[Path]:
    """The directory that was named, or one that vanishes."""
    return kept_home(Path(order.data_dir)) if order.data_dir else temporary_home()


def start_all(order: Order, home: Path, cleanup: ExitStack) -> dict[str, Server]:
    """Servers that answer, by the environment variable that leads to them."""
    servers = {}
    for variable, service in ordered_services(order, home):
        servers[variable] = Server.start(service)
        cleanup.callback(servers[variable].stop)
    return servers


def ordered_services(order: Order, home: Path) -> Iterator[tuple[str, Service]]:
    """Each service with its variable, prepared when its turn comes."""
    password = password_in(home)
    if order.postgres:
        yield "DATABASE_URL", Postgres(postgres_home(home), password, is_durable=order.is_durable)
    if order.redis:
        yield "REDIS_URL", Valkey(home, password, is_durable=order.is_durable)


def is_released(order: Order) -> bool:
    """Whether we are to end: asked, let go of, or orphaned while a child of the launcher holds our input."""
    readable, _, _ = select.select([sys.stdin, _asked], [], [], POLL_S)
    return bool(readable) or os.getppid() != order.launcher_pid


def reply(answer: Started) -> None:
    """Tell the launcher, which may be gone by now."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{answer.encode()}\n".encode())


def note(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe already."""


if __name__ == "__main__":
    main()
