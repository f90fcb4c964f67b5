"""The prompts app."""

from django.apps import AppConfig


class PromptsConfig(AppConfig):
    name = "prompts"

    def ready(self) -> None:
        from prompts import lookups  # noqa: F401  registers the JSON lookup
