"""REST routes of this app, mounted under /api/v1/. A prompt's name may hold `/`: longer routes first."""

from django.urls import URLPattern
from dmr.routing import path

from prompts.api.completions import CompletionsController
from prompts.api.models import ModelCheckController, ModelController, ModelsController
from prompts.api.prompts import (
    DiffController,
    LabelController,
    LabelsController,
    PromptController,
    PromptsController,
    RenderController,
    VersionsController,
)

urlpatterns: list[URLPattern] = [
    path("prompts", PromptsController.as_view(), name="prompts"),
    path("prompts/<path:name>/versions", VersionsController.as_view(), name="prompt-versions"),
    path("prompts/<path:name>/diff", DiffController.as_view(), name="prompt-diff"),
    path("prompts/<path:name>/render", RenderController.as_view(), name="prompt-render"),
    path("prompts/<path:name>/labels/<str:label>", LabelController.as_view(), name="prompt-label"),
    path("prompts/<path:name>/labels", LabelsController.as_view(), name="prompt-labels"),
    path("prompts/<path:name>", PromptController.as_view(), name="prompt"),
    path("completions", CompletionsController.as_view(), name="completions"),
    path("models", ModelsController.as_view(), name="models"),
    path("models/<str:name>/check", ModelCheckController.as_view(), name="model-check"),
    path("models/<str:name>", ModelController.as_view(), name="model"),
]
