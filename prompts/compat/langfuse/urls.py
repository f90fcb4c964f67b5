"""The addresses of Langfuse's API that have to do with prompts, and the refusal of all others."""

from django.urls import path, re_path

from prompts.compat.langfuse import projects, prompts
from prompts.compat.langfuse.surface import answers, open_to_all, refuse_path

# The clients percent-encode a whole name, `/` included, and it arrives decoded: longer routes first.
urlpatterns = [
    path("health", open_to_all(projects.show_health), name="langfuse-health"),
    path("projects", answers(GET=projects.list_projects), name="langfuse-projects"),
    path(
        "v2/prompts", answers(GET=prompts.list_prompts, POST=prompts.create_prompt), name="langfuse-prompts"
    ),
    path(
        "v2/prompts/<path:name>/versions/<int:version>",
        answers(PATCH=prompts.point_labels),
        name="langfuse-prompt-labels",
    ),
    path(
        "v2/prompts/<path:name>",
        answers(GET=prompts.show_prompt, DELETE=prompts.delete_prompt),
        name="langfuse-prompt",
    ),
    re_path("", refuse_path, name="langfuse-unknown"),
]
