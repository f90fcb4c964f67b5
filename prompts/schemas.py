"""What the prompt routes take and answer."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from autoforge.pagination import PageQuery
from prompts.models import Label, LabelMove, PromptVersion
from prompts.names import LATEST

MAX_VERSION = 2_147_483_647  # what the column holds
VersionNumber = Annotated[int, Meta(ge=1, le=MAX_VERSION)]


class Input(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of bodies and queries: a field we do not know is refused by name."""


class NewVersion(Input):
    """`template` is a string, or for chats [{"role", "content"} | {"type": "placeholder", "name"}]."""

    template: str | list[dict[str, Any]]
    config: dict[str, Any] = {}
    labels: list[str] = []
    message: str = ""


class NewPrompt(NewVersion, kw_only=True):
    name: str
    type: Literal["text", "chat"]
    tags: list[str] = []


class PromptChanges(Input):
    """A version's content never changes: tags are all there is to change."""

    tags: list[str]


class PromptPath(msgspec.Struct):
    name: str


class LabelPath(msgspec.Struct):
    name: str
    label: str


class PromptsQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """`name` is a part of it in any case; `label` also chooses the version that is shown."""

    name: str | None = None
    label: str | None = None
    tag: str | None = None


class VersionQuery(Input):
    """Neither means production, else latest."""

    label: str | None = None
    version: VersionNumber | None = None


class DiffQuery(Input):
    old: VersionNumber = msgspec.field(name="from")
    new: VersionNumber = msgspec.field(name="to")


class LabelTarget(Input):
    version: VersionNumber


class Rendering(VersionQuery, kw_only=True):
    vars: dict[str, Any] = {}


class Rendered(msgspec.Struct):
    messages: list[dict[str, Any]]


class PromptOut(msgspec.Struct, kw_only=True):
    """One version of a prompt; `labels` are those that point at it, 'latest' included."""

    name: str
    type: str
    version: int
    template: str | list[dict[str, Any]]
    variables: list[str]
    config: dict[str, Any]
    labels: list[str]
    tags: list[str]
    message: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, version: PromptVersion) -> Self:
        """From a row of `PromptVersion.objects.for_show()`."""
        labels = version.label_names  # type: ignore[attr-defined]  # annotated
        is_newest = version.number == version.newest_number  # type: ignore[attr-defined]  # annotated
        return cls(
            name=version.prompt.name,
            type=version.prompt.type,
            version=version.number,
            template=version.template,
            variables=version.variables,
            config=version.config,
            labels=[*labels, LATEST] if is_newest else labels,
            tags=version.prompt.tags,
            message=version.message,
            created_at=version.created_at,
            created_by=version.created_by,
        )


class LabelOut(msgspec.Struct):
    name: str
    version: int
    is_protected: bool

    @classmethod
    def of(cls, label: Label, protected: list[str]) -> Self:
        return cls(label.name, label.version.number, label.name in protected)


class LabelMoveOut(msgspec.Struct):
    """`to_version` is null when the label was taken away, `from_version` when it was new."""

    label: str
    from_version: int | None
    to_version: int | None
    moved_by: str
    moved_at: datetime

    @classmethod
    def of(cls, move: LabelMove) -> Self:
        return cls(move.label, move.from_version, move.to_version, move.moved_by, move.moved_at)


class LabelsOut(msgspec.Struct):
    """Where the labels point now, and a page of their moves, newest first."""

    labels: list[LabelOut]
    moves: list[LabelMoveOut]
    next_cursor: str | None = None
