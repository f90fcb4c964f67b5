"""`manage.py evaluate`: a file becomes a run, with an exit code that CI can act on."""

import json
from pathlib import Path

import pytest
from django.core.management import call_command

from autoforge.services import get_or_create_project
from evaluations.experiments import find_endpoint
from evaluations.files import FileProvider
from evaluations.models import Case, Dataset, Run
from prompts.models import ModelEndpoint, PromptVersion
from prompts.services import create_endpoint

pytestmark = pytest.mark.django_db(transaction=True)

FILE = """
prompts:
  - "Say {{ word }}"
  - {name: greet, template: [{role: user, content: "Echo {{ word }}"}], config: {temperature: 0}}
providers: [simulated]
tests:
  - vars: {word: [hello, bye]}
    assert: [{type: icontains, value: "{{ word }}"}]
  - vars: {word: x}
    expected: "Say x"
    assert: [{type: equals, value: "{{ expected }}"}]
"""


# 2 values of each of 40 variables: a million million cases.
LISTS = ", ".join(f"v{number}: [1, 2]" for number in range(40))
# What an alias stands for may hold aliases.
DEEP = "k0: &k0 x, " + ", ".join(f"k{n + 1}: &k{n + 1} [*k{n}]" for n in range(600))
BOMB = "k0: &k0 x, " + ", ".join(f"k{n + 1}: &k{n + 1} [{', '.join([f'*k{n}'] * 9)}]" for n in range(9))
MERGED_BOMB = "k0: &k0 {a: b}, " + ", ".join(f"k{n + 1}: &k{n + 1} {{<<: [*k{n}, *k{n}]}}" for n in range(40))


def one_test(test: str) -> str:
    """A file with one case."""
    return f"prompts: [a]\nproviders: [simulated]\ntests: [{test}]"


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Runs the command on a text; gives (exit code, output, error output)."""
    project = get_or_create_project("demo")
    create_endpoint(project, name="simulated", provider="simulated", settings={"output": "echo"})

    def run(text: str, *arguments: str) -> tuple[int, str, str]:
        path = tmp_path / "greetings.yaml"
        path.write_text(text)
        with pytest.raises(SystemExit) as exit_:
            call_command("evaluate", str(path), *arguments)
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def test_some_failed_exits_100_and_shows_both_columns(evaluate):
    code, out, _ = evaluate(FILE)
    assert code == 100
    assert "greetings/1 v1" in out
    assert "greet v1" in out
    run = Run.objects.get()
    assert (run.total, run.passed, run.failed, run.errors) == (6, 5, 1, 0)


def test_all_passed_exits_0_and_writes_the_report(evaluate, tmp_path):
    report = tmp_path / "report.json"
    code, _, _ = evaluate(
        FILE.replace('expected: "Say x"', "expected: x").replace("equals", "contains"), "-o", str(report)
    )
    assert code == 0
    assert [column["pass_rate"] for column in json.loads(report.read_bytes())["columns"]] == [1.0, 1.0]


def test_a_date_is_text_as_in_json(evaluate):
    code, _, _ = evaluate(
        "prompts: ['On {{ day }}']\nproviders: [simulated]\n"
        "tests: [{vars: {day: 2024-05-01}, expected: 2024-05-02, metadata: {at: 2024-05-01 10:00:00}}]\n"
        "defaultTest: {assert: [{type: equals, value: On 2024-05-01}]}\n"
    )
    assert code == 0
    case = Case.objects.get()
    assert (case.vars, case.expected) == ({"day": "2024-05-01"}, "2024-05-02")
    assert case.metadata == {"at": "2024-05-01 10:00:00"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "/no/such/folder/x.json"), "/no/such/folder/x.json: no file can be written there"),
        (("-o", "/"), "no file can be written there"),
        (("-j", "0"), "concurrency must be between 1 and 1000, not 0"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_paid(evaluate, arguments, sentence):
    code, _, err = evaluate(FILE, *arguments)
    assert code == 1 and sentence in err
    assert not Run.objects.exists()


def test_errors_exit_1(evaluate):
    ModelEndpoint.objects.update(settings={"error_rate": 1.0})
    code, _, _ = evaluate(FILE)
    assert code == 1
    assert Run.objects.get().errors == 6


def test_the_same_file_twice_stores_nothing_twice(evaluate):
    evaluate(FILE)
    evaluate(FILE)
    assert Run.objects.count() == 2
    assert (Dataset.objects.count(), PromptVersion.objects.count(), ModelEndpoint.objects.count()) == (
        1,
        2,
        1,
    )


def test_a_file_may_use_aliases(evaluate):
    code, _, _ = evaluate(
        "prompts: ['Say {{ word }}']\nproviders: [simulated]\n"
        "tests:\n  - {vars: &hello {word: hello}, assert: &same [{type: icontains, value: hello}]}\n"
        "  - {vars: {<<: *hello, other: x}, assert: *same}\n"
    )
    assert code == 0
    assert [case.vars for case in Case.objects.order_by("pk")] == [
        {"word": "hello"},
        {"word": "hello", "other": "x"},
    ]


def test_cases_may_live_in_a_file_beside_it(evaluate, tmp_path):
    (tmp_path / "cases.csv").write_text("word,expected\nhello,hello\nbye,bye\n")
    code, _, _ = evaluate(
        'prompts: ["Say {{ word }}"]\nproviders: [simulated]\ntests: file://cases.csv\n'
        'defaultTest: {assert: [{type: icontains, value: "{{ expected }}"}]}\n'
    )
    assert code == 0
    assert Run.objects.get().passed == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prompts: [a]", "missing required field `providers`"),
        ("- 1", "must be a mapping"),
        ("prompts: [a\n", "is not valid YAML"),
        ("prompts: [a]\nproviders: [simulated]\n", "'tests' is empty"),
        ("prompts: []\nproviders: [simulated]\ntests: [{}]", "'prompts' is empty"),
        ("prompts: [a]\nproviders: [nope]\ntests: [{}]", "There is no model 'nope'"),
        ("prompts: [a]\nproviders: [simulated]\ntests: [{asert: []}]", "unknown field `asert`"),
        ("prompts: [a]\nproviders: [simulated]\ntests: file://none.csv", "none.csv: cannot be read"),
        ("prompts: [a]\nproviders: [simulated]\ntests: [{vars: {a: .nan}}]", "a number must be finite"),
        ("prompts: [a]\nproviders: [simulated]\ntests: [{vars: {a: !!binary aGk=}}]", "line 3"),
        (
            "prompts: [{name: a, version: 99999999999999999999}]\nproviders: [simulated]\ntests: [{}]",
            "version",
        ),
        (f"prompts: [a]\nproviders: [simulated]\ntests: [{{vars: {{a: {'9' * 5_000}}}}}]", "no number"),
        (
            f"prompts: [a]\nproviders: [simulated]\ntests: [{{vars: {{{LISTS}}}}}]",
            "over 1,000,000 cases",
        ),
        (one_test("{vars: {a: &a [*a]}}"), "this contains itself"),
        (one_test("{vars: &a {b: {c: *a}}}"), "this contains itself"),
        (one_test("{metadata: &a {<<: *a}}"), "this contains itself"),
        (one_test(f"{{metadata: {{a: {'[' * 120}{']' * 120}}}}}"), "nested too deeply"),
        (one_test(f"{{metadata: {{{DEEP}}}}}"), "nested too deeply"),
        (one_test(f"{{metadata: {{{BOMB}}}}}"), "its aliases stand for more than 8 MiB"),
        (one_test(f"{{metadata: {{{MERGED_BOMB}}}}}"), "its aliases stand for more than 8 MiB"),
        ("prompts: ['{{ a']\nproviders: [simulated]\ntests: [{}]", "line 1"),
        (
            "prompts: [a]\nproviders: [simulated]\ntests: [{}]\ndefaultTest: {assert: [{type: equalz}]}",
            'did you mean "equals"?',
        ),
    ],
)
def test_a_wrong_file_exits_1_with_a_sentence(evaluate, text, sentence):
    code, _, err = evaluate(text)
    assert code == 1
    assert sentence in err
    assert not Run.objects.exists()
    assert not PromptVersion.objects.exists()


def test_the_sample_file_is_read_and_loaded_once():
    call_command("load_sample", project="demo", verbosity=0)
    call_command("load_sample", project="demo", verbosity=0)
    assert [version.number for version in PromptVersion.objects.order_by("number")] == [1, 2]
    assert Dataset.objects.get().case_count >= 44
    assert set(ModelEndpoint.objects.values_list("name", flat=True)) == {"local", "simulated"}
    assert Path("samples/support/evaluate.yaml").exists()


CASE = "prompts: [a]\ntests: [{assert: [{type: equals, value: cold}]}]\n"


def providers(*configs: dict, id: str = "simulated:m", **more: str) -> str:
    return CASE + f"providers: {json.dumps([{'id': id, 'config': config, **more} for config in configs])}\n"


def settings_of(output: str) -> dict:
    return {"settings": {"output": output}}


@pytest.mark.parametrize("more", [{}, {"label": "mine"}])
def test_an_edited_config_is_what_runs(evaluate, more):
    assert evaluate(providers(settings_of("cold"), **more))[0] == 0
    assert evaluate(providers(settings_of("warm"), **more))[0] == 100
    assert evaluate(providers(settings_of("cold"), **more))[0] == 0
    assert evaluate(providers({}, **more))[0] == 100
    assert ModelEndpoint.objects.count() == 4


def test_two_configs_of_one_model_are_two_columns(evaluate):
    for _ in range(2):
        assert evaluate(providers(settings_of("cold"), settings_of("warm")))[0] == 100
        run = Run.objects.latest("created_at")
        assert (run.passed, run.failed) == (1, 1)
        assert len({endpoint["name"] for endpoint in run.endpoints}) == 2
    assert ModelEndpoint.objects.count() == 3


def test_a_label_that_is_another_model_is_not_taken_for_it(evaluate):
    evaluate(providers(settings_of("cold"), label="mine"))
    evaluate(providers(settings_of("cold"), id="simulated:other", label="mine"))
    assert Run.objects.latest("created_at").endpoints[0]["model"] == "other"


def test_what_contradicts_the_file_gets_a_sentence(evaluate):
    evaluate(providers(settings_of("cold"), settings_of("warm")))
    ModelEndpoint.objects.exclude(name="simulated").update(model="changed")
    code, _, err = evaluate(providers(settings_of("warm")))
    assert (code, "was changed after it had been stored" in err) == (1, True)
    create_endpoint(get_or_create_project("demo"), name="own", provider="simulated")
    code, _, err = evaluate(providers(settings_of("warm"), id="own"))
    assert (code, "is stored with its own parameters" in err) == (1, True)
    assert Run.objects.count() == 1


def test_a_rotated_key_of_the_environment_replaces_the_stored_one(monkeypatch):
    project = get_or_create_project("demo")
    for secret in ("sk-old", "sk-new"):
        monkeypatch.setenv("OPENAI_API_KEY", secret)
        endpoint = find_endpoint(project, FileProvider(id="openai:chat:gpt-4o", config={"temperature": 0}))
        assert endpoint.as_endpoint().api_key == secret
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint = find_endpoint(project, FileProvider(id="openai:chat:gpt-4o", config={"temperature": 0}))
    assert endpoint.as_endpoint().api_key == "sk-new"
    assert ModelEndpoint.objects.get().params == {"temperature": 0}
