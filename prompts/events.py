"""What happened to prompts: typed messages sent after the commit."""

import msgspec
from django.dispatch import Signal

# Receivers get `event=`, one of the structs below. Sent with `send_robust`, from any thread.
prompt_event = Signal()


class PromptEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base: which prompt of which project."""

    project_id: int
    prompt: str


class VersionCreated(PromptEvent, frozen=True, kw_only=True):
    version: int


class LabelMoved(PromptEvent, frozen=True, kw_only=True):
    """`version` is None when the label was taken away."""

    label: str
    version: int | None


class TagsChanged(PromptEvent, frozen=True, kw_only=True):
    pass


class VersionDeleted(PromptEvent, frozen=True, kw_only=True):
    version: int


class PromptDeleted(PromptEvent, frozen=True, kw_only=True):
    pass


def emit(event: PromptEvent) -> None:
    """Tell every listener; a listener's failure is logged and harms nobody."""
    prompt_event.send_robust(sender=type(event), event=event)
