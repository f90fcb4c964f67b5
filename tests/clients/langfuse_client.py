"""What a user of Langfuse's Python SDK does, in an environment that has only that: prints what was seen."""

import base64
import json
import os
import sys
import urllib.parse
import urllib.request
from datetime import UTC, datetime

from langfuse import Evaluation, Langfuse

name = sys.argv[1]
# Address and keys come from the environment: nothing else was changed.
langfuse = Langfuse()
assert langfuse.auth_check()

TEXT = "As a {{level}} critic, rate {{ movie }}. Keep {% this %}."
MOVIE = f"{name}/movie critic"
first = langfuse.create_prompt(
    name=MOVIE, prompt=TEXT, labels=["production"], tags=["films"], config={"temperature": 0}
)
second = langfuse.create_prompt(name=MOVIE, prompt=TEXT + " Be short.", labels=["staging"])


def move_production(version):
    """Behind the client's back: what it has cached stays as it is."""
    pair = f"{os.environ['LANGFUSE_PUBLIC_KEY']}:{os.environ['LANGFUSE_SECRET_KEY']}"
    path = f"/api/public/v2/prompts/{urllib.parse.quote(MOVIE, safe='')}/versions/{version}"
    request = urllib.request.Request(
        os.environ["LANGFUSE_BASE_URL"] + path,
        data=b'{"newLabels": ["production"]}',
        headers={
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/json",
        },
        method="PATCH",
    )
    urllib.request.urlopen(request, timeout=60).close()


prompt = langfuse.get_prompt(MOVIE)
seen = {
    "prompt": {
        "created": [first.version, second.version],
        "text": prompt.prompt,
        "compiled": prompt.compile(level="harsh", movie="Dune"),
        "labels": prompt.labels,
        "config": prompt.config,
        "staging": langfuse.get_prompt(MOVIE, label="staging").version,
    },
}
move_production(2)
seen["cached"] = langfuse.get_prompt(MOVIE).version
move_production(1)
langfuse.update_prompt(name=MOVIE, version=2, new_labels=["production"])
seen["moved"] = langfuse.get_prompt(MOVIE, cache_ttl_seconds=0).version
seen["fallback"] = langfuse.get_prompt("nobody", fallback="Say {{x}}", max_retries=0).compile(x="hi")
CHAT = [
    {"role": "system", "content": "You are {{who}}."},
    {"type": "placeholder", "name": "history"},
    {"role": "user", "content": "{{question}}"},
]
langfuse.create_prompt(name=f"{name}/chat", type="chat", prompt=CHAT, labels=["production"])
chat = langfuse.get_prompt(f"{name}/chat", type="chat")
seen["chat"] = chat.compile(who="Ann", question="Why?", history=[{"role": "user", "content": "Hi"}])

langfuse.create_dataset(name=name, description="Capitals", metadata={"owner": "me"})
for id, country, capital in [("1", "France", "Paris"), ("2", "Peru", "Lima"), ("2", "Chile", "Santiago")]:
    langfuse.create_dataset_item(
        dataset_name=name, id=f"{name}-{id}", input={"country": country}, expected_output=capital
    )
dataset = langfuse.get_dataset(name)
seen["items"] = [[item.input["country"], item.expected_output] for item in dataset.items]


def always_paris(*, item, **kwargs):
    """With a model call in it."""
    with langfuse.start_as_current_observation(
        name="call", as_type="generation", model="gpt-test", prompt=prompt, input=item.input
    ) as call:
        call.update(usage_details={"input": 7, "output": 3}, cost_details={"input": 0.001, "output": 0.002})
    return "Paris"


def knows_all(*, item, **kwargs):
    return item.expected_output


def is_right(*, output, expected_output, **kwargs):
    return Evaluation(name="is_right", value=float(output == expected_output), comment=f"got {output}")


def share_right(*, item_results, **kwargs):
    values = [evaluation.value for result in item_results for evaluation in result.evaluations]
    return Evaluation(name="share_right", value=sum(values) / len(values))


def run(run_name, task):
    done = dataset.run_experiment(
        name=name,
        run_name=run_name,
        description="Of the world",
        task=task,
        evaluators=[is_right],
        run_evaluators=[share_right],
        metadata={"team": "films"},
    )
    return len(done.item_results)


seen["results"] = [run("always Paris", always_paris), run("knows all", knows_all)]
langfuse.flush()


def experiments_as_read():
    """As SDK 5 reads them back, one to a page."""
    since, cursor, pages = datetime(2020, 1, 1, tzinfo=UTC), None, []
    while cursor or not pages:
        pages.append(
            langfuse.api.experiments.list(
                from_start_time=since, dataset_id=dataset.id, fields="metadata,scores", limit=1, cursor=cursor
            )
        )
        cursor = pages[-1].meta.cursor
    found = {}
    for experiment in (page.data[0] for page in pages):
        items = langfuse.api.experiments.list_items(
            from_start_time=since, experiment_id=experiment.id, fields="io,scores,experimentMetadata"
        ).data
        found[experiment.name] = {
            "said": [experiment.description, experiment.metadata["team"], items[0].experiment_description],
            "scores": [[score.name, score.value] for score in experiment.scores],
            "items": sorted([it.input["country"], it.output, it.scores[0].value] for it in items),
        }
    return found


if hasattr(langfuse.api, "experiments"):
    seen["experiments"] = experiments_as_read()
json.dump(seen, sys.stdout)
