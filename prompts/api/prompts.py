"""`/api/v1/prompts`: templates under version control."""

from http import HTTPStatus

from django.http import HttpResponse
from dmr import Path, Query, ResponseSpec, modify, validate

from autoforge.api import Body, ProjectController
from autoforge.models import Role
from autoforge.pagination import Page, PageQuery
from prompts import services
from prompts.caching import find_prompt, read_prompt
from prompts.diffing import VersionDiff, diff_versions
from prompts.models import Prompt
from prompts.reads import (
    get_prompt,
    page_of_label_moves,
    page_of_prompts,
    page_of_versions,
    resolve_version,
    version_pair,
)
from prompts.schemas import (
    DiffQuery,
    LabelPath,
    LabelsOut,
    LabelTarget,
    NewPrompt,
    NewVersion,
    PromptChanges,
    PromptOut,
    PromptPath,
    PromptsQuery,
    Rendered,
    Rendering,
    VersionQuery,
)

_NOT_MODIFIED = ResponseSpec(None, status_code=HTTPStatus.NOT_MODIFIED)


class PromptBase(ProjectController):
    """What the routes below one prompt share."""

    is_abstract = True

    def prompt(self, name: str) -> Prompt:
        """The caller's prompt called `name`. Raises NotFound."""
        return get_prompt(self.project, name)

    def shown(self, name: str, *, label: str | None = None, version: int | None = None) -> PromptOut:
        """A version as it is answered, read anew."""
        found = resolve_version(self.project, name, label=label, version=version, for_show=True)
        return PromptOut.of(found)


class PromptsController(PromptBase):
    """The project's prompts."""

    @validate(ResponseSpec(Page[PromptOut], status_code=HTTPStatus.OK), _NOT_MODIFIED)
    def get(self, parsed_query: Query[PromptsQuery]) -> HttpResponse:
        """A page by name. Each is shown at the label asked for, by default production else latest."""
        return self.to_conditional_response(page_of_prompts(self.project, parsed_query))

    def post(self, parsed_body: Body[NewPrompt]) -> PromptOut:
        """A new prompt with its version 1."""
        body = parsed_body
        version = services.create_prompt(
            self.project,
            name=body.name,
            type=body.type,
            template=body.template,
            config=body.config,
            labels=body.labels,
            tags=body.tags,
            message=body.message,
            actor=self.actor,
        )
        return self.shown(body.name, version=version.number)


class PromptController(PromptBase):
    """One prompt; its name may contain folders."""

    @validate(ResponseSpec(PromptOut, status_code=HTTPStatus.OK), _NOT_MODIFIED)
    def get(self, parsed_path: Path[PromptPath], parsed_query: Query[VersionQuery]) -> HttpResponse:
        """The version at ?label= or ?version=, by default production else latest.

        It may be a second old; with Cache-Control: no-cache it is as of now.
        """
        label, version = parsed_query.label, parsed_query.version
        kept = read_prompt(
            self.project, parsed_path.name, label=label, version=version, fresh=self.wants_fresh
        )
        return self.kept_response(kept)

    def patch(self, parsed_path: Path[PromptPath], parsed_body: Body[PromptChanges]) -> PromptOut:
        """Replace the tags; content changes by adding a version."""
        services.set_tags(self.prompt(parsed_path.name), tags=parsed_body.tags)
        return self.shown(parsed_path.name)

    @modify(status_code=HTTPStatus.NO_CONTENT)
    def delete(self, parsed_path: Path[PromptPath]) -> None:
        """Delete it with all its versions."""
        services.delete_prompt(self.prompt(parsed_path.name), actor=self.actor)


class VersionsController(PromptBase):
    """The versions of a prompt: immutable and numbered."""

    @validate(ResponseSpec(Page[PromptOut], status_code=HTTPStatus.OK), _NOT_MODIFIED)
    def get(self, parsed_path: Path[PromptPath], parsed_query: Query[PageQuery]) -> HttpResponse:
        """A page, newest first."""
        return self.to_conditional_response(page_of_versions(self.prompt(parsed_path.name), parsed_query))

    @validate(
        ResponseSpec(PromptOut, status_code=HTTPStatus.CREATED),
        ResponseSpec(PromptOut, status_code=HTTPStatus.OK),
    )
    def post(self, parsed_path: Path[PromptPath], parsed_body: Body[NewVersion]) -> HttpResponse:
        """A new version (201), or the one that has this content already (200)."""
        added = services.add_version(
            self.prompt(parsed_path.name),
            template=parsed_body.template,
            config=parsed_body.config,
            labels=parsed_body.labels,
            message=parsed_body.message,
            actor=self.actor,
        )
        shown = self.shown(parsed_path.name, version=added.version.number)
        return self.to_response(shown, status_code=HTTPStatus.CREATED if added.is_new else HTTPStatus.OK)


class DiffController(PromptBase):
    """What changed between two versions."""

    def get(self, parsed_path: Path[PromptPath], parsed_query: Query[DiffQuery]) -> VersionDiff:
        """From version ?from= to version ?to=."""
        old, new = version_pair(self.project, parsed_path.name, parsed_query.old, parsed_query.new)
        return diff_versions(old, new)


class RenderController(PromptBase):
    """A prompt filled with variables. Nothing is stored, so every reader may."""

    write_role = Role.VIEWER

    @modify(status_code=HTTPStatus.OK)
    def post(self, parsed_path: Path[PromptPath], parsed_body: Body[Rendering]) -> Rendered:
        """The messages; 422 with `missing` and `unknown` when the variables do not fit."""
        body = parsed_body
        version = find_prompt(self.project, parsed_path.name, label=body.label, version=body.version)
        return Rendered(services.render_version(version, body.vars, refuse_unknown=True))


class LabelsController(PromptBase):
    """Where the labels of a prompt point, and where they pointed before."""

    def get(self, parsed_path: Path[PromptPath], parsed_query: Query[PageQuery]) -> LabelsOut:
        """All labels and a page of their moves, newest first."""
        return page_of_label_moves(self.prompt(parsed_path.name), self.project, parsed_query)


class LabelController(PromptBase):
    """One label of a prompt."""

    def put(self, parsed_path: Path[LabelPath], parsed_body: Body[LabelTarget]) -> PromptOut:
        """Point it at a version. A protected label needs the role owner."""
        path, number = parsed_path, parsed_body.version
        services.move_label(self.prompt(path.name), label=path.label, version=number, actor=self.actor)
        return self.shown(path.name, version=number)

    @modify(status_code=HTTPStatus.NO_CONTENT)
    def delete(self, parsed_path: Path[LabelPath]) -> None:
        """Take it away. A protected label needs the role owner."""
        services.remove_label(self.prompt(parsed_path.name), label=parsed_path.label, actor=self.actor)
