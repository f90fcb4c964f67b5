"""REST: data sets, their cases, imports."""

from collections.abc import Callable
from http import HTTPStatus

import msgspec
from django.conf import settings
from django.http import HttpRequest
from dmr import Path, Query, modify

from autoforge.api import Body, ProjectController
from autoforge.errors import AppError, InvalidInput, NotFound, TooLarge
from autoforge.models import Project
from autoforge.pagination import Page, PageQuery, paginate
from evaluations import services
from evaluations.importing import limited_chunks
from evaluations.models import Dataset
from evaluations.schemas import CaseOut, DatasetOut, Imported, NewCase, NewDataset
from evaluations.services.datasets import CaseFormat

_FORMATS: dict[str, CaseFormat] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
}
_ENDINGS: dict[str, CaseFormat] = {"csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}
_FORM_BYTES = 64 * 1024


class DatasetPath(msgspec.Struct):
    name: str


class UnsupportedMedia(AppError):
    status, code = 415, "unsupported_media_type"


def find_dataset(project: Project, name: str) -> Dataset:
    """The project's data set. Raises NotFound."""
    dataset = project.datasets.filter(name=name).first()
    if dataset is None:
        raise NotFound(f"There is no data set {name!r}.")
    return dataset


class DatasetsController(ProjectController):
    """Data sets of the caller's project."""

    def get(self, parsed_query: Query[PageQuery]) -> Page[DatasetOut]:
        """By name."""
        return paginate(self.project.datasets.all(), parsed_query, order=["name"], show=DatasetOut.of)

    def post(self, parsed_body: Body[NewDataset]) -> DatasetOut:
        """An empty data set."""
        dataset = services.create_dataset(
            self.project, name=parsed_body.name, description=parsed_body.description
        )
        return DatasetOut.of(dataset)


class DatasetController(ProjectController):
    """One data set."""

    def get(self, parsed_path: Path[DatasetPath]) -> DatasetOut:
        """With the count of its cases."""
        return DatasetOut.of(find_dataset(self.project, parsed_path.name))


class CasesController(ProjectController):
    """The cases of a data set."""

    def get(self, parsed_path: Path[DatasetPath], parsed_query: Query[PageQuery]) -> Page[CaseOut]:
        """In the order in which they were added."""
        dataset = find_dataset(self.project, parsed_path.name)
        return paginate(dataset.cases.current(), parsed_query, order=["id"], show=CaseOut.of)

    def post(
        self, parsed_path: Path[DatasetPath], parsed_body: Body[NewCase | list[NewCase]]
    ) -> CaseOut | list[CaseOut]:
        """Add one case, or a list of them: all or none."""
        dataset = find_dataset(self.project, parsed_path.name)
        if isinstance(parsed_body, NewCase):
            return CaseOut.of(services.add_cases(dataset, [parsed_body])[0])
        return [CaseOut.of(case) for case in services.add_cases(dataset, parsed_body)]


class ImportController(ProjectController):
    """Many cases from a file."""

    @modify(status_code=HTTPStatus.CREATED)
    def post(self, parsed_path: Path[DatasetPath]) -> Imported:
        """CSV or JSON lines, as the body or as the file of a multipart form: all rows or none."""
        dataset = find_dataset(self.project, parsed_path.name)
        read, format = _upload(self.request)
        chunks = limited_chunks(read, settings.MAX_IMPORT_BYTES)
        return Imported(services.import_cases(dataset, chunks, format=format))


def _upload(request: HttpRequest) -> tuple[Callable[[int], bytes], CaseFormat]:
    """What reads the file, and its format. Raises UnsupportedMedia, InvalidInput or TooLarge."""
    if request.content_type == "multipart/form-data":
        return _form_file(request)
    if format := _FORMATS.get(str(request.content_type)):
        return request.read, format
    raise UnsupportedMedia(
        "Send text/csv, application/x-ndjson, or multipart/form-data with one .csv or .jsonl file."
    )


def _form_file(request: HttpRequest) -> tuple[Callable[[int], bytes], CaseFormat]:
    size = int(request.META.get("CONTENT_LENGTH") or 0)
    if size > settings.MAX_IMPORT_BYTES + _FORM_BYTES:
        raise TooLarge(
            f"An import may have at most {settings.MAX_IMPORT_BYTES // 2**20} MiB: split the file."
        )
    files = [file for _, listed in request.FILES.lists() for file in listed]
    if len(files) != 1:
        raise InvalidInput(f"The form must hold exactly one file, not {len(files)}.")
    name = str(files[0].name)
    format = _ENDINGS.get(name.rpartition(".")[2].lower()) or _FORMATS.get(str(files[0].content_type))
    if format is None:
        raise InvalidInput(f"The file {name!r} must be named .csv, .jsonl or .ndjson.")
    return files[0].read, format
