"""Where others learn of calls and cache look-ups, without this package knowing them."""

import logging
from collections.abc import Callable

from prompts.llm.providers.base import Completion, ProviderError, Request

logger = logging.getLogger(__name__)

CallObserver = Callable[[Request, Completion | ProviderError, float], None]
CacheObserver = Callable[[bool], None]

on_call: list[CallObserver] = []
"""Called after each call of a provider, failed attempts included: (request, outcome, seconds)."""

on_cache: list[CacheObserver] = []
"""Called after each look-up in the response cache: is it a hit?"""


on_saved: list[Callable[[Request, Completion], None]] = []
"""Called with each answer that cost nobody anything: from the cache, or of a call that somebody shared."""


def call_ended(request: Request, outcome: Completion | ProviderError, seconds: float) -> None:
    """Tell the observers of a call. Their failures are logged and harm nobody."""
    for observer in on_call:
        try:
            observer(request, outcome, seconds)
        except Exception:
            logger.exception("An observer of model calls failed")


def cache_read(*, hit: bool) -> None:
    """Tell the observers of a look-up."""
    for observer in on_cache:
        try:
            observer(hit)
        except Exception:
            logger.exception("An observer of the response cache failed")


def answer_saved(request: Request, completion: Completion) -> None:
    """Tell the observers of an answer that took no call of its own."""
    for observer in on_saved:
        try:
            observer(request, completion)
        except Exception:
            logger.exception("An observer of saved answers failed")
