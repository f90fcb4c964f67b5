"""REST routes of this app, mounted under /api/v1/."""

from django.urls import URLPattern
from dmr.routing import path

from evaluations.api import datasets, results, runs

# A data set's name may contain slashes: the longer routes come first.
urlpatterns: list[URLPattern] = [
    path("datasets", datasets.DatasetsController.as_view(), name="datasets"),
    path("datasets/<path:name>/cases", datasets.CasesController.as_view(), name="cases"),
    path("datasets/<path:name>/import", datasets.ImportController.as_view(), name="import"),
    path("datasets/<path:name>", datasets.DatasetController.as_view(), name="dataset"),
    path("runs", runs.RunsController.as_view(), name="runs"),
    path("runs/<uuid:run_id>", runs.RunController.as_view(), name="run"),
    path("runs/<uuid:run_id>/cancel", runs.CancelController.as_view(), name="run-cancel"),
    path("runs/<uuid:run_id>/resume", runs.ResumeController.as_view(), name="run-resume"),
    path("runs/<uuid:run_id>/retry-errors", runs.RetryErrorsController.as_view(), name="run-retry-errors"),
    path("runs/<uuid:run_id>/results", results.ResultsController.as_view(), name="results"),
    path("runs/<uuid:run_id>/report", results.ReportController.as_view(), name="report"),
    path("runs/<uuid:run_id>/export", results.ExportController.as_view(), name="export"),
    path("runs/<uuid:run_id>/compare/<uuid:other_id>", results.CompareController.as_view(), name="compare"),
]
