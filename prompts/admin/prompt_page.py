"""What the page of a prompt shows: where its labels point, its versions, and what changed between two."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import Prefetch

from prompts.diffing import ConfigDiff, VersionDiff, diff_versions
from prompts.models import Label, LabelMove, Prompt, PromptVersion
from prompts.names import PRODUCTION

SHOWN_VERSIONS = SHOWN_MOVES = 20


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a diff; `kind` is added, removed, place (where it is) or same."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A label, whether only owners may move it, and its last move if that is not too long ago."""

    label: Label
    is_protected: bool
    move: LabelMove | None


@dataclass(frozen=True)
class PromptPage:
    """`old` and `new` are the numbers of the versions to hold against each other; None leaves it to us."""

    prompt: Prompt
    old: int | None
    new: int | None

    @cached_property
    def versions(self) -> list[PromptVersion]:
        """The newest ones, each with its labels."""
        rows = self.prompt.versions.order_by("-number").defer("template", "config", "variables")
        return list(
            rows.prefetch_related(Prefetch("labels", Label.objects.order_by("name")))[:SHOWN_VERSIONS]
        )

    @cached_property
    def labels(self) -> list[LabelRow]:
        """By name."""
        rows = self.prompt.labels.select_related("version").defer("version__template").order_by("name")
        last = {move.label: move for move in reversed(self.moves)}
        protected = self.prompt.project.protected_labels
        return [LabelRow(label, label.name in protected, last.get(label.name)) for label in rows]

    @cached_property
    def moves(self) -> list[LabelMove]:
        """The newest first."""
        return list(self.prompt.label_moves.order_by("-pk")[:SHOWN_MOVES])

    @cached_property
    def pair(self) -> tuple[PromptVersion | None, PromptVersion | None]:
        """By default the newest version, against what is in production or the one before."""
        new = self._version(self.new) or self.prompt.versions.order_by("-number").first()
        if new is None:
            return None, None
        return self._version(self.old) or self._before(new), new

    @cached_property
    def diff(self) -> VersionDiff | None:
        old, new = self.pair
        return diff_versions(old, new) if old and new else None

    @property
    def lines(self) -> list[Line]:
        """The changes of the template; the names of the versions stand above already."""
        return [_line(text) for text in self.diff.template.split("\n")[2:]] if self.diff else []

    @property
    def config_rows(self) -> list[tuple[str, str, str, str]]:
        """(kind, key, before, after) of every key of config that differs; values as JSON."""
        return _config_rows(self.diff.config) if self.diff else []

    def _version(self, number: int | None) -> PromptVersion | None:
        return self.prompt.versions.filter(number=number).first() if number is not None else None

    def _before(self, new: PromptVersion) -> PromptVersion | None:
        earlier = self.prompt.versions.exclude(pk=new.pk)
        pointed = earlier.filter(labels__name=PRODUCTION).first()
        return pointed or earlier.filter(number__lt=new.number).order_by("-number").first()


def _line(text: str) -> Line:
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return Line(kinds.get(text[:1], "same"), text)


def _config_rows(config: ConfigDiff) -> list[tuple[str, str, str, str]]:
    changed = sorted(config.changed.items())
    return [
        *(("added", key, "–", _json(value)) for key, value in sorted(config.added.items())),
        *(("removed", key, _json(value), "–") for key, value in sorted(config.removed.items())),
        *(("changed", key, _json(change.old), _json(change.new)) for key, change in changed),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
