"""The prompts app."""

from django.apps import AppConfig


class PromptsConfig(AppConfig):
    name = "prompts"

    def ready(self) -> None:
        from prompts import (
            caching,
            lookups,  # noqa: F401  registers the JSON lookup
        )
        from prompts.compat.langfuse import errors as langfuse
        from prompts.compat.openai import errors as openai

        caching.connect()
        openai.connect()
        langfuse.connect()
