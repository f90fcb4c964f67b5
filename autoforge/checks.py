"""System checks: wrong settings fail loudly at the start, with a sentence."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def production_needs_its_secrets(**_: Any) -> list[CheckMessage]:
    """DEBUG off without a SECRET_KEY or ALLOWED_HOSTS."""
    if settings.DEBUG:
        return []
    missing = [name for name in ("SECRET_KEY", "ALLOWED_HOSTS") if not getattr(settings, name)]
    return [
        Error(f"DEBUG is off and {name} is not set: put it into the environment or .env.") for name in missing
    ]


@register()
def executor_is_known(**_: Any) -> list[CheckMessage]:
    """AUTOFORGE_EXECUTOR is one that exists, and Celery has a broker."""
    if settings.EXECUTOR not in ("inprocess", "celery"):
        return [Error(f"AUTOFORGE_EXECUTOR is {settings.EXECUTOR!r}: it must be 'inprocess' or 'celery'.")]
    if settings.EXECUTOR == "celery" and not settings.REDIS_URL:
        return [Error("AUTOFORGE_EXECUTOR is 'celery', which needs REDIS_URL.")]
    return []
