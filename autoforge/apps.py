"""The foundation app: projects, keys and what every other app shares."""

from django.apps import AppConfig


class AutoForgeConfig(AppConfig):
    name = "autoforge"
    verbose_name = "Projects and keys"

    def ready(self) -> None:
        # The checks register themselves; the Celery application becomes the default one.
        from autoforge import celery, checks, chores, logins  # noqa: F401  each connects what is its own

        logins.connect()
        chores.register()
