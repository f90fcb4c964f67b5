"""The addresses of Langfuse's API that have to do with data sets, experiments and scores."""

from django.urls import path

from evaluations.compat.langfuse import datasets, experiment_lists, runs, scores, traces
from prompts.compat.langfuse.surface import answers

# The clients percent-encode a whole name, `/` included, and it arrives decoded: longer routes first.
urlpatterns = [
    path(
        "v2/datasets",
        answers(GET=datasets.list_datasets, POST=datasets.put_dataset),
        name="langfuse-datasets",
    ),
    path("v2/datasets/<path:name>", answers(GET=datasets.show_dataset), name="langfuse-dataset"),
    path("dataset-items", answers(GET=datasets.list_items, POST=datasets.put_item_of), name="langfuse-items"),
    path(
        "dataset-items/<path:key>",
        answers(GET=datasets.show_item, DELETE=datasets.delete_item),
        name="langfuse-item",
    ),
    path("dataset-run-items", answers(POST=runs.link_item), name="langfuse-run-items"),
    path("datasets/<path:name>/runs", answers(GET=runs.list_runs), name="langfuse-runs"),
    path(
        "datasets/<path:name>/runs/<path:run_name>",
        answers(GET=runs.show_run, DELETE=runs.delete_run),
        name="langfuse-run",
    ),
    path("experiments", answers(GET=experiment_lists.list_experiments), name="langfuse-experiments"),
    path(
        "experiment-items",
        answers(GET=experiment_lists.list_experiment_items),
        name="langfuse-experiment-items",
    ),
    path("ingestion", answers(POST=scores.ingest), name="langfuse-ingestion"),
    path("scores", answers(POST=scores.create_scores), name="langfuse-scores"),
    path("otel/v1/traces", answers(POST=traces.take_traces), name="langfuse-traces"),
]
