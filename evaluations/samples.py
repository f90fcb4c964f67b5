"""The sample project: support messages to classify, two versions of a prompt, two models."""

from pathlib import Path

from django.conf import settings
from django.db import transaction

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.experiments import find_endpoint, store_cases, store_prompts
from evaluations.files import Experiment, FileProvider, read_evaluation_file
from prompts.models import Prompt
from prompts.reads import get_prompt
from prompts.services import move_label

DATASET = "support"
# A stand-in for a vendor in load tests and first steps; never chosen silently.
_SIMULATED = FileProvider(id="simulated", config={"settings": {"latency_ms": 100, "output": "expected"}})


def sample_file() -> Path:
    """The experiment that the sample project is made of."""
    path: Path = settings.BASE_DIR / "samples" / "support" / "evaluate.yaml"
    return path


@transaction.atomic
def load_sample(project: Project) -> Experiment:
    """Bring the sample into `project`; what is there already stays as it is."""
    experiment = read_evaluation_file(sample_file())
    actor = Actor.system(project, "sample")
    is_new = not Prompt.objects.in_project(project).exists()
    refs = store_prompts(project, experiment, actor=actor)
    if is_new:
        newest = refs[-1]
        prompt = get_prompt(project, newest.name)
        move_label(prompt, label="production", version=newest.version or 1, actor=actor)
    store_cases(project, experiment, name=DATASET)
    for provider in (*experiment.providers, _SIMULATED):
        find_endpoint(project, provider)
    return experiment
