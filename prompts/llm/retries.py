"""When to try again, and how long to wait before."""

import random

from django.conf import settings

from prompts.llm.providers.base import ProviderError

BACKOFF_BASE_S = 0.5
BACKOFF_MAX_S = 20.0
RETRY_AFTER_MAX_S = 60.0


def retry_delay_s(error: ProviderError, attempt: int, most: int | None = None) -> float | None:
    """Seconds before attempt `attempt` + 1, None if there should be none, as after `most`.

    Exponential backoff with full jitter (AWS Architecture Blog, 2015), at least what Retry-After asks
    for. A vendor that asks for more than RETRY_AFTER_MAX_S will not be there in time: no more attempts.
    """
    if not error.is_retryable or attempt >= (most or settings.MODEL_MAX_ATTEMPTS):
        return None
    asked_s = error.retry_after_s or 0.0
    if asked_s > RETRY_AFTER_MAX_S:
        return None
    ceiling_s = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** (attempt - 1))
    if error.retry_after_s is not None:
        # Those who were refused together should not come back together.
        return asked_s + random.uniform(0, min(ceiling_s, asked_s))
    return random.uniform(0, ceiling_s)
