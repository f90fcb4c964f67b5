"""What a process keeps only to be quicker, and can give up when memory runs short."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

# Gives memory up, from any thread; the bytes freed, None where nobody counts them.
Trim = Callable[[], int | None]
_trims: dict[str, Trim] = {}


def can_trim(name: str, trim: Trim) -> None:
    """Have `trim` called when memory runs short; `name` is what the log calls it."""
    _trims[name] = trim


def trim_all() -> dict[str, int]:
    """Bytes freed by name, of those that freed some; one that fails is logged and stops no other."""
    freed = {name: _trimmed(name, trim) for name, trim in list(_trims.items())}
    return {name: count for name, count in freed.items() if count}


def _trimmed(name: str, trim: Trim) -> int:
    try:
        return trim() or 0
    except Exception:
        logger.exception("%s could not be trimmed", name)
        return 0
