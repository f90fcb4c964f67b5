"""What a run is called by Langfuse's SDKs, the same whichever of their versions executes it."""

import hashlib

import msgspec

from evaluations.models import Dataset
from evaluations.services.external import Identity

SOURCE = "langfuse"


def identity_of(dataset: Dataset, run_name: str) -> Identity:
    """As SDK 5 derives a run's id, so that every SDK that uses the name joins the same run."""
    parts = ["langfuse-experiment-v1", str(dataset.project_id), str(dataset.pk), run_name]
    digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    return Identity(digest[:16], run_name, SOURCE)
