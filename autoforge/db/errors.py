"""What the database refuses for a while: callers get 503 and come back."""

from typing import ClassVar

import psycopg
from django.db.utils import InterfaceError, OperationalError

# SQLSTATE classes (PostgreSQL's appendix A): connection lost, resources gone, stopped by the operator.
_PASSING = ("08", "53", "57P")


class DatabaseUnavailable(OperationalError):
    """No connection can be had now. `retry_after_s` is when it is worth asking again."""

    retry_after_s: ClassVar[int] = 5


class PoolExhausted(DatabaseUnavailable):
    """Every connection of the pool stayed in use for the whole time that we waited."""

    retry_after_s = 1


def is_passing(error: Exception) -> bool:
    """Whether PostgreSQL went away under a statement, or may soon carry it out: no bug of ours."""
    cause = error.__cause__
    if not isinstance(error, OperationalError | InterfaceError) or not isinstance(cause, psycopg.Error):
        return False
    # None: the connection broke before the server could say why.
    return cause.sqlstate is None or cause.sqlstate.startswith(_PASSING)
