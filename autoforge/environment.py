"""Reads the environment; a value that is none of its kind is refused with the name of its variable."""

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

_KINDS = {int: "a whole number", float: "a number", bool: "1 or 0"}


class Environment(environ.Env):
    """django-environ's reader with sentences for mistakes."""

    def get_value(self, var: str, cast: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Raises ImproperlyConfigured for a value that cannot be read."""
        try:
            return super().get_value(var, cast, *args, **kwargs)
        except (ValueError, TypeError, LookupError) as error:
            kind = "a list like name=1,other=2" if isinstance(cast, dict) else _KINDS[cast]
            raise ImproperlyConfigured(f"{var} must be {kind}, not {self.ENVIRON[var]!r}.") from error
