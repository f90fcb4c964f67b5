"""The foundation app: projects, keys and what every other app shares."""

from django.apps import AppConfig


class AutoForgeConfig(AppConfig):
    name = "autoforge"
    verbose_name = "Projects and keys"

    def ready(self) -> None:
        from autoforge import checks  # noqa: F401  registers the system checks
