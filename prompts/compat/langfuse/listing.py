"""Prompts as Langfuse lists them: each with all its versions and labels, by three queries a page."""

from collections import defaultdict

from django.db.models import F

from prompts.compat.langfuse.schemas import ListedPrompt
from prompts.models import Label, Prompt, PromptVersion
from prompts.names import LATEST

MAX_LISTED_VERSIONS = 1_000  # of one prompt, the newest


def shown_prompts(prompts: list[Prompt]) -> list[ListedPrompt]:
    """In the same order."""
    numbers: defaultdict[int, list[int]] = defaultdict(list)
    rows = PromptVersion.objects.filter(prompt__in=prompts).order_by("prompt", "number")
    for prompt_id, number in rows.values_list("prompt_id", "number"):
        numbers[prompt_id].append(number)
    labels: defaultdict[int, list[str]] = defaultdict(list)
    for prompt_id, label in (
        Label.objects.filter(prompt__in=prompts).order_by("name").values_list("prompt_id", "name")
    ):
        labels[prompt_id].append(label)
    configs = _last_configs(prompts)
    return [
        ListedPrompt(
            name=prompt.name,
            type=prompt.type,
            versions=numbers[prompt.pk][-MAX_LISTED_VERSIONS:],
            labels=[*labels[prompt.pk], LATEST],
            tags=prompt.tags,
            last_updated_at=prompt.updated_at,
            last_config=configs.get(prompt.pk, {}),
        )
        for prompt in prompts
    ]


def _last_configs(prompts: list[Prompt]) -> dict[int, object]:
    newest = PromptVersion.objects.for_show().filter(prompt__in=prompts, number=F("newest_number"))
    return dict(newest.prefetch_related(None).values_list("prompt_id", "config"))
