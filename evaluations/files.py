"""Evaluation files: a run written down in YAML, in the field's usual (promptfoo's) words."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import yaml
from django.conf import settings

from prompts.schemas import VersionNumber

MAX_FILE_BYTES = 64 * 1024 * 1024
# By how much a file may grow when its aliases (`*name`) are written out.
MAX_ALIASED_CHARS = 8 * 1024 * 1024
MAX_LEVELS = 100


_TAG = "tag:yaml.org,2002:"
_NOT_IN_JSON = ("timestamp", "binary", "set")


class EvaluationFileError(ValueError):
    """A sentence that names the place in the file and what to change there."""


class FilePrompt(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A prompt written in the file (`template`), or one already stored (`label` or `version`)."""

    name: str = ""
    template: str | list[dict[str, Any]] | None = None
    config: dict[str, Any] = {}
    message: str = ""
    label: str | None = None
    version: VersionNumber | None = None


class FileProvider(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A model: an endpoint's name or `vendor:model`, with settings of its own."""

    id: str
    label: str = ""
    config: dict[str, Any] = {}


class FileTest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One case; a list as a variable's value stands for one case each."""

    vars: dict[str, Any] = {}
    expected: Any = None
    scorers: list[dict[str, Any]] = msgspec.field(default_factory=list, name="assert")
    metadata: dict[str, Any] = {}
    description: str = ""


class DefaultTest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every case shares."""

    vars: dict[str, Any] = {}
    scorers: list[dict[str, Any]] = msgspec.field(default_factory=list, name="assert")
    metadata: dict[str, Any] = {}
    threshold: float | None = None


class EvaluateOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """How to run it."""

    max_concurrency: int = 4
    repeat: int = 1
    cache: bool = True
    show_progress_bar: bool = True


class EvaluationFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """The whole file. `tests` is a list of cases, or `file://` and a CSV, JSONL or YAML file beside it."""

    prompts: list[str | FilePrompt]
    providers: list[str | FileProvider]
    tests: str | list[FileTest] = []
    default_test: DefaultTest = msgspec.field(default_factory=DefaultTest)
    evaluate_options: EvaluateOptions = msgspec.field(default_factory=EvaluateOptions)
    description: str = ""
    seed: int | None = None
    budget_usd: float | None = msgspec.field(default=None, name="budget_usd")


class Experiment(msgspec.Struct, kw_only=True):
    """An evaluation file with all it refers to. `cases_path` is set when the cases are a file."""

    name: str
    prompts: list[FilePrompt]
    providers: list[FileProvider]
    tests: list[FileTest]
    cases_path: Path | None
    file: EvaluationFile


def read_evaluation_file(path: Path) -> Experiment:
    """The experiment at `path`. Raises EvaluationFileError."""
    file = _parse(path)
    cases_path = _path_of(file.tests, path) if isinstance(file.tests, str) else None
    tests = [] if isinstance(file.tests, str) else file.tests
    if cases_path and cases_path.suffix in (".yaml", ".yml"):
        tests, cases_path = _convert(_load(cases_path), list[FileTest], cases_path), None
    if not tests and not cases_path:
        raise EvaluationFileError(f"{path}: 'tests' is empty: give a list of cases, or file://cases.jsonl.")
    return Experiment(
        name=path.parent.name if path.stem in ("evaluate", "promptfooconfig") else path.stem,
        prompts=[_prompt(entry, path) for entry in file.prompts],
        providers=[FileProvider(id=entry) if isinstance(entry, str) else entry for entry in file.providers],
        tests=_expanded(tests, path),
        cases_path=cases_path,
        file=file,
    )


def _parse(path: Path) -> EvaluationFile:
    raw = _load(path)
    if not isinstance(raw, dict):
        raise EvaluationFileError(
            f"{path}: the file must be a mapping with 'prompts', 'providers' and 'tests'."
        )
    if "targets" in raw:
        raw["providers"] = raw.pop("targets")
    raw.pop("$schema", None)
    file: EvaluationFile = _convert(raw, EvaluationFile, path)
    for field in ("prompts", "providers"):
        if not getattr(file, field):
            raise EvaluationFileError(f"{path}: '{field}' is empty: name at least one.")
    return file


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise EvaluationFileError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB.")
        return _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise EvaluationFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise EvaluationFileError(f"{path}: is not UTF-8 text.") from error
    except RecursionError:
        raise EvaluationFileError(f"{path}: is nested too deeply.") from None
    except yaml.YAMLError as error:
        raise EvaluationFileError(f"{path}: is not valid YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """What YAML and JSON have in common: a date is text, and there are no infinite numbers."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != f"{_TAG}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag not in [_TAG + name for name in _NOT_IN_JSON]
    }

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_aliases(node)
        return node

    def finite(self, node: Any) -> float:
        number: float = self.construct_yaml_float(node)
        if not math.isfinite(number):
            raise yaml.constructor.ConstructorError(None, None, "a number must be finite", node.start_mark)
        return number

    def short(self, node: Any) -> int:
        try:
            number: int = self.construct_yaml_int(node)
        except ValueError:
            raise yaml.constructor.ConstructorError(
                None, None, "this is no number that can be read", node.start_mark
            ) from None
        return number


@dataclass(frozen=True, slots=True)
class _Extent:
    """Of a node, in about as many characters as it takes in a file: without and with all that is in it."""

    own: int
    whole: int
    levels: int


def _check_aliases(root: yaml.Node) -> None:
    """Raises YAMLError for what contains itself, lies too deep, or stands for far more than is written."""
    extents: dict[int, _Extent | None] = {}
    whole = _extent_of(root, extents).whole
    written = sum(extent.own for extent in extents.values() if extent)
    if whole - written > MAX_ALIASED_CHARS:
        grown = f"its aliases stand for more than {MAX_ALIASED_CHARS // 2**20} MiB: write less with them"
        raise yaml.YAMLError(grown)


def _extent_of(node: yaml.Node, extents: dict[int, _Extent | None]) -> _Extent:
    """`extents` has it by the node's id; None while it is being found out."""
    if id(node) not in extents:
        extents[id(node)] = None
        inner = [_extent_of(child, extents) for child in _children(node)]
        own = 1 if inner else len(node.value) + 1
        levels = 1 + max((extent.levels for extent in inner), default=0)
        extents[id(node)] = _Extent(own, own + sum(extent.whole for extent in inner), levels)
    extent = extents[id(node)]
    if extent is None:
        raise yaml.constructor.ConstructorError(None, None, "this contains itself", node.start_mark)
    if extent.levels > MAX_LEVELS:
        raise yaml.constructor.ConstructorError(None, None, "this is nested too deeply", node.start_mark)
    return extent


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return list(itertools.chain.from_iterable(node.value))
    return node.value if isinstance(node, yaml.SequenceNode) else []


_Loader.add_constructor(f"{_TAG}float", _Loader.finite)
_Loader.add_constructor(f"{_TAG}int", _Loader.short)


def _convert(raw: Any, shape: Any, path: Path) -> Any:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        raise EvaluationFileError(f"{path}: {error}") from error


def _path_of(reference: str, beside: Path) -> Path:
    if not reference.startswith("file://"):
        raise EvaluationFileError(f"{beside}: {reference!r} must start with file:// or be written out.")
    return beside.parent / reference.removeprefix("file://")


def _prompt(entry: str | FilePrompt, path: Path) -> FilePrompt:
    prompt = FilePrompt(template=entry) if isinstance(entry, str) else entry
    if isinstance(prompt.template, str) and prompt.template.startswith("file://"):
        prompt = msgspec.structs.replace(prompt, template=_template_at(_path_of(prompt.template, path)))
    if prompt.template is None and not prompt.name:
        raise EvaluationFileError(f"{path}: a prompt needs a 'template', or the 'name' of a stored one.")
    return prompt


def _template_at(path: Path) -> str | list[dict[str, Any]]:
    if path.suffix in (".json", ".yaml", ".yml"):
        return _convert(_load(path), list[dict[str, Any]], path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{path}: cannot be read as a prompt ({error}).") from error


def _expanded(tests: list[FileTest], path: Path) -> list[FileTest]:
    """All cases, if they are not more than a run may have."""
    if sum(math.prod(map(len, _choices(test))) for test in tests) > settings.RUN_MAX_CELLS:
        raise EvaluationFileError(
            f"{path}: the combinations of the lists in 'vars' are over {settings.RUN_MAX_CELLS:,} cases, "
            "which is more than a run may have."
        )
    return [case for test in tests for case in _expand(test, path)]


def _choices(test: FileTest) -> list[list[Any]]:
    return [value if isinstance(value, list) else [value] for value in test.vars.values()]


def _expand(test: FileTest, path: Path) -> list[FileTest]:
    """One case for each combination of listed values."""
    names = list(test.vars)
    return [
        msgspec.structs.replace(
            test, vars={name: _value(value, path) for name, value in zip(names, combination, strict=True)}
        )
        for combination in itertools.product(*_choices(test))
    ]


def _value(value: Any, path: Path) -> Any:
    if not isinstance(value, str) or not value.startswith("file://"):
        return value
    source = _path_of(value, path)
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{source}: cannot be read as a variable ({error}).") from error
