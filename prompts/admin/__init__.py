"""The operator's desk for prompts and models."""

from prompts.admin.endpoints import ModelEndpointAdmin
from prompts.admin.prompts import PromptAdmin
from prompts.admin.versions import PromptVersionAdmin

__all__ = ["ModelEndpointAdmin", "PromptAdmin", "PromptVersionAdmin"]
