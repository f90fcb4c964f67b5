"""What the database refuses for a while: callers get 503 and come back."""

from typing import ClassVar

from django.db.utils import OperationalError


class DatabaseUnavailable(OperationalError):
    """No connection can be had now. `retry_after_s` is when it is worth asking again."""

    retry_after_s: ClassVar[int] = 5


class PoolExhausted(DatabaseUnavailable):
    """Every connection of the pool stayed in use for the whole time that we waited."""

    retry_after_s = 1
