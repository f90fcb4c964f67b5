"""TCP ports as commands take them."""

import socket
from argparse import ArgumentTypeError

from django.core.management.base import CommandError

_MOST = 65_535


def port_number(text: str) -> int:
    """The type of a --port option."""
    if not (text.isdigit() and 1 <= int(text) <= _MOST):
        raise ArgumentTypeError(f"a port is a number between 1 and {_MOST}, not {text!r}")
    return int(text)


def refuse_used_port(host: str, port: int) -> None:
    """Raises CommandError when nobody can listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} is taken ({error.strerror}): choose another with PORT=…."
            ) from error
