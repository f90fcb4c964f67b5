"""Turns a prompt's template and a case's variables into messages."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from jinja2 import Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError

from autoforge.trimming import can_trim
from prompts.metering import BoundExceededError, Meter, metered
from prompts.sandbox import SandboxEnvironment

MAX_OUTPUT_BYTES = 1_048_576
MAX_TEMPLATE_CHARS = 1_048_576
ENTRY_CHARS = 2_000
MAX_CACHED_CHARS = 8 * 1_048_576  # of the templates kept compiled
CODE_PER_CHAR = 10  # what the code of a template takes, about
_MARKS = ("{{", "{%", "{#")

Message = dict[str, Any]
TemplateBody = str | list[Message]


class RenderError(ValueError):
    """A template that cannot be rendered with these variables: a sentence, and the names at fault."""

    def __init__(
        self, sentence: str, *, missing: list[str] | None = None, unknown: list[str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.missing = missing or []
        self.unknown = unknown or []


def render(
    template: TemplateBody,
    type: Literal["text", "chat"],
    vars: Mapping[str, Any],
    *,
    refuse_unknown: bool = False,
) -> list[Message]:
    """The messages. A text prompt is one user message; a placeholder is the messages given for its name.

    Raises RenderError for a wrong template, missing variables, more than 1 MiB of text or too much work,
    and, with `refuse_unknown`, for variables that the template does not use.
    """
    if refuse_unknown:
        _check_unknown(template, vars)
    with metered() as meter:
        output = _Output(vars, meter)
        if type == "text":
            return [{"role": "user", "content": output.text(_as_text(template))}]
        return [message for item in _as_messages(template) for message in output.messages(item)]


def render_value(text: str, vars: Mapping[str, Any]) -> str:
    """One text, as the values of scorers are: "{{ expected }}". Raises RenderError."""
    with metered() as meter:
        return _Output(vars, meter).text(text)


def variables(template: TemplateBody) -> list[str]:
    """The names a template uses, placeholders included, sorted. Raises RenderError for a wrong template."""
    if isinstance(template, str):
        return sorted(_names(template))
    names = {item["name"] for item in _as_messages(template) if item.get("type") == "placeholder"}
    for item in _as_messages(template):
        for text in _texts(item.get("content")):
            names |= _names(text)
    return sorted(names)


class _Output:
    """The texts of one rendering, which share its bounds."""

    def __init__(self, vars: Mapping[str, Any], meter: Meter) -> None:
        self._vars = vars
        self._meter = meter
        self._left = MAX_OUTPUT_BYTES

    def messages(self, item: Message) -> list[Message]:
        if item.get("type") == "placeholder":
            return _placed(item["name"], self._vars)
        return [item | {"content": self._content(item.get("content"))}]

    def _content(self, content: Any) -> Any:
        """Every text in a content or its parts, rendered."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, list):
            return [self._content(part) for part in content]
        if isinstance(content, dict):
            return {
                name: value if name == "type" else self._content(value) for name, value in content.items()
            }
        return content

    def text(self, text: str) -> str:
        """Raises RenderError."""
        try:
            if not any(mark in text for mark in _MARKS):
                return self._bounded([text])
            template = compiled.get(text).template
            return self._bounded(template.root_render_func(template.new_context(dict(self._vars))))
        except UndefinedError as error:
            raise _undefined(text, self._vars, error) from error
        except RenderError:
            raise
        except (BoundExceededError, SecurityError) as error:
            raise RenderError(str(error)) from error
        except RecursionError as error:
            raise RenderError("The template calls itself too deeply.") from error
        except Exception as error:
            # Whatever an expression raises is the template's fault, not ours.
            raise RenderError(f"The template cannot be rendered: {error}.") from error

    def _bounded(self, pieces: Iterable[str]) -> str:
        kept = []
        for piece in pieces:
            size = len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
            self._left -= size
            if self._left < 0:
                raise BoundExceededError(f"The rendered prompt is larger than {MAX_OUTPUT_BYTES} bytes.")
            self._meter.spend(size)
            kept.append(piece)
        return "".join(kept)


class _Compiled:
    """A template's code, and the names it uses."""

    def __init__(self, text: str) -> None:
        tree = _environment.parse(text)
        self.names = frozenset(meta.find_undeclared_variables(tree))
        self.optional_names = frozenset(_guarded_names(tree))
        code = _environment.compile(tree)
        self.template = Template.from_code(_environment, code, _environment.globals)


class _CompiledTemplates:
    """The templates used last, bounded by the length of their texts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Compiled] = OrderedDict()
        self._chars = 0

    def get(self, text: str) -> _Compiled:
        """Raises RenderError for a wrong template."""
        with self._lock:
            held = self._held.get(text)
            if held is not None:
                self._held.move_to_end(text)
                return held
        fresh = _compile(text)
        with self._lock:
            self._chars += 0 if text in self._held else len(text) + ENTRY_CHARS
            self._held[text] = fresh
            while self._chars > MAX_CACHED_CHARS:
                self._chars -= len(self._held.popitem(last=False)[0]) + ENTRY_CHARS
        return fresh

    def clear(self) -> int:
        """Forget all; how much that frees, in bytes and about."""
        with self._lock:
            freed, self._chars = self._chars * CODE_PER_CHAR, 0
            self._held.clear()
        return freed


_environment = SandboxEnvironment()
compiled = _CompiledTemplates()
can_trim("compiled templates", compiled.clear)


def _compile(text: str) -> _Compiled:
    if len(text) > MAX_TEMPLATE_CHARS:
        raise RenderError(f"The template is longer than {MAX_TEMPLATE_CHARS} characters.")
    try:
        return _Compiled(text)
    except TemplateSyntaxError as error:
        raise RenderError(f"The template is wrong in line {error.lineno}: {error.message}.") from error
    except (TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise RenderError("The template is nested too deeply.") from error


def _names(text: str) -> frozenset[str]:
    return compiled.get(text).names if any(mark in text for mark in _MARKS) else frozenset()


def _guarded_names(tree: nodes.Template) -> Iterator[str]:
    """Names that may be missing: `x is defined`, `x | default(…)`."""
    guards = [n.node for n in tree.find_all(nodes.Test) if n.name in {"defined", "undefined"}]
    guards += [n.node for n in tree.find_all(nodes.Filter) if n.name in {"d", "default"} and n.node]
    return (node.name for node in guards if isinstance(node, nodes.Name))


def _undefined(text: str, vars: Mapping[str, Any], error: UndefinedError) -> RenderError:
    template = compiled.get(text)
    missing = sorted(template.names - template.optional_names - set(vars))
    if missing:
        return RenderError(f"Missing variables: {', '.join(missing)}.", missing=missing)
    return RenderError(f"The template cannot be rendered: {error}.")


def _check_unknown(template: TemplateBody, vars: Mapping[str, Any]) -> None:
    unknown = sorted(set(vars) - set(variables(template)))
    if unknown:
        raise RenderError(f"Unknown variables: {', '.join(unknown)}.", unknown=unknown)


def _placed(name: str, vars: Mapping[str, Any]) -> list[Message]:
    """The messages given for a placeholder. They are data: nothing in them is rendered."""
    if name not in vars:
        raise RenderError(f"Missing variables: {name}.", missing=[name])
    given = vars[name]
    if not isinstance(given, list) or not all(isinstance(item, dict) and "role" in item for item in given):
        raise RenderError(f"The placeholder {name!r} needs a list of messages with role and content.")
    return list(given)


def _as_text(template: TemplateBody) -> str:
    if not isinstance(template, str):
        raise RenderError("A text prompt's template is a text.")
    return template


def _as_messages(template: TemplateBody) -> list[Message]:
    if isinstance(template, str):
        raise RenderError("A chat prompt's template is a list of messages.")
    return template


def _texts(content: Any) -> Iterator[str]:
    """The texts of a content that are rendered."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | dict):
        parts = content if isinstance(content, list) else [v for k, v in content.items() if k != "type"]
        for part in parts:
            yield from _texts(part)
