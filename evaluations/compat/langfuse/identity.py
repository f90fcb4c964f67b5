"""What a run is called by Langfuse's SDKs, the same whichever of their versions executes it."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator

import msgspec
from django.db.models import Q

from autoforge.errors import InvalidInput
from evaluations.models import Dataset
from evaluations.services.external import Identity

SOURCE = "langfuse"
# Parts of a name under which `datasets/{name}/runs/{run}` would not find a run.
_LOST = {"runs", ".", ".."}


def identity_of(dataset: Dataset, run_name: str) -> Identity:
    """As SDK 5 derives a run's id, so that every SDK that uses the name joins the same run."""
    parts = ["langfuse-experiment-v1", str(dataset.project_id), str(dataset.pk), run_name]
    digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    return Identity(digest[:16], run_name, SOURCE)


def check_run_name(name: str) -> None:
    """Raises InvalidInput for a name that no address can hold."""
    if found := _LOST.intersection(name.split("/")):
        raise InvalidInput(f"The name of a run may not have {found.pop()!r} as a part between /: {name!r}.")


def called(names: Iterable[str]) -> Q:
    """Runs of those names; one without a name is shown, and found, under its own id."""
    names = list(names)
    return Q(name__in=names) | Q(name="", pk__in=list(own_ids(names)))


def own_ids(values: Iterable[str]) -> Iterator[uuid.UUID]:
    """Those of `values` that may be ids of runs that are executed here."""
    for value in values:
        try:
            yield uuid.UUID(value)
        except ValueError:
            continue
