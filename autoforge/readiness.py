"""Tells a service manager that this process has begun its work: sd_notify(3), without its library."""

import os
import socket


def tell_ready() -> None:
    """READY=1 to $NOTIFY_SOCKET; nothing without one. A manager that is gone keeps nobody from work."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A leading @ stands for Linux's abstract namespace.
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
        try:
            messenger.sendto(b"READY=1", path)
        except OSError:
            return
