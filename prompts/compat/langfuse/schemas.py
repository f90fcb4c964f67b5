"""What Langfuse's clients send and expect of prompts. Fields we do not know are ignored, as theirs are."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from prompts.compat.langfuse.surface import PageQuery, in_utc
from prompts.compat.langfuse.texts import to_chat, to_text
from prompts.schemas import PromptOut, VersionNumber


class NewPrompt(msgspec.Struct, kw_only=True, rename="camel"):
    """A version to add; of a name that is new, the first. `type` is left out for texts."""

    name: str
    prompt: str | list[dict[str, Any]]
    type: Literal["text", "chat"] | None = None
    config: Any = None
    labels: list[str] | None = None
    tags: list[str] | None = None
    commit_message: str | None = None


class NewLabels(msgspec.Struct, rename="camel"):
    new_labels: list[str]


class PromptQuery(msgspec.Struct):
    label: Annotated[str, Meta(min_length=1)] | None = None
    version: VersionNumber | None = None


class PromptsQuery(PageQuery, kw_only=True, rename="camel"):
    """Filters; `name` is the whole name."""

    limit: int = 10
    name: str | None = None
    label: str | None = None
    tag: str | None = None
    from_updated_at: datetime | None = None
    to_updated_at: datetime | None = None

    def __post_init__(self) -> None:
        self.from_updated_at = self.from_updated_at and in_utc(self.from_updated_at)
        self.to_updated_at = self.to_updated_at and in_utc(self.to_updated_at)


class LangfusePrompt(msgspec.Struct, kw_only=True, rename="camel"):
    """One version of a prompt."""

    id: str
    project_id: str
    name: str
    version: int
    type: str
    prompt: str | list[dict[str, Any]]
    config: Any
    labels: list[str]
    tags: list[str]
    commit_message: str | None
    created_at: datetime
    updated_at: datetime
    created_by: str
    resolution_graph: None = None
    is_active: bool

    @classmethod
    def of(cls, shown: PromptOut, project_id: int) -> Self:
        template = shown.template
        return cls(
            id=f"{shown.name}:{shown.version}",
            project_id=str(project_id),
            name=shown.name,
            version=shown.version,
            type=shown.type,
            prompt=to_text(template) if isinstance(template, str) else to_chat(template),
            config=shown.config,
            labels=shown.labels,
            tags=shown.tags,
            commit_message=shown.message or None,
            created_at=shown.created_at,
            updated_at=shown.created_at,
            created_by=shown.created_by,
            is_active="production" in shown.labels,
        )


class ListedPrompt(msgspec.Struct, kw_only=True, rename="camel"):
    """A prompt with the numbers of its versions."""

    name: str
    type: str
    versions: list[int]
    labels: list[str]
    tags: list[str]
    last_updated_at: datetime
    last_config: Any
