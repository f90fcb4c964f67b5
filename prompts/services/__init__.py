"""Writes to prompts and endpoints, and what a call of a model is made of."""

from prompts.services.calls import Call, PromptChoice, build_request, prepare_call, render_version
from prompts.services.endpoints import (
    EndpointChanges,
    apply_changes,
    change_endpoint,
    create_endpoint,
    delete_endpoint,
)
from prompts.services.labels import move_label, remove_label
from prompts.services.prompts import (
    AddedVersion,
    add_version,
    create_prompt,
    delete_prompt,
    delete_version,
    set_tags,
)

__all__ = [
    "AddedVersion",
    "Call",
    "EndpointChanges",
    "PromptChoice",
    "add_version",
    "apply_changes",
    "build_request",
    "change_endpoint",
    "create_endpoint",
    "create_prompt",
    "delete_endpoint",
    "delete_prompt",
    "delete_version",
    "move_label",
    "prepare_call",
    "remove_label",
    "render_version",
    "set_tags",
]
