"""Imports put off until something of the module is used: what costs megabytes and most processes never need.

From Python 3.15 on the language has it (PEP 810). What each one saves stands in docs/performance/realtime.md.
"""

from importlib import import_module
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # found without us from now on
        return value


def lazy(name: str) -> Any:
    """The module `name`, imported at its first use, by any thread. For types import it if TYPE_CHECKING."""
    return _LazyModule(name)
