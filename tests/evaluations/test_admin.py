"""The operator's desk: what members see and do with data sets, runs and results, and strangers do not."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from autoforge.models import Membership, Project, Role
from evaluations import executor
from evaluations.models import Case, Dataset, Result, Run
from prompts.services import add_version, create_endpoint
from tests.conftest import ApiClient
from tests.evaluations.conftest import fill, wait_for_end
from tests.prompts.test_admin import sign_in

pytestmark = pytest.mark.django_db(transaction=True)

DESK = "/admin/evaluations"
DATASETS, CASES, RUNS, RESULTS = (f"{DESK}/{model}/" for model in ("dataset", "case", "run", "result"))


@pytest.fixture
def editor(project: Project) -> Client:
    return sign_in("ada", project)


@pytest.fixture
def looker(project: Project) -> Client:
    return sign_in("lin", project, Role.VIEWER)


@pytest.fixture
def outsider(other_project: Project) -> Client:
    return sign_in("eve", other_project, Role.OWNER)


@pytest.fixture
def run(ended: Callable[..., Any], project: Project) -> Run:
    """Ten cells in each of two columns, half of them passed; two scorers."""
    create_endpoint(project, name="other", provider="simulated", settings={"output": "something else"})
    scorers = [{"type": "equals", "value": "{{ expected }}"}, {"type": "contains", "value": "s"}]
    return Run.objects.get(pk=ended(models=["sim", "other"], scorers=scorers, name="First try")["id"])


def body(response: Any, status: int = 200) -> str:
    """The page, after checking its status."""
    assert response.status_code == status, (response.status_code, response.content[:500])
    return response.content.decode()


def pages_of(run: Run) -> list[str]:
    result, case = run.results.order_by("pk")[0], run.frozen_cases()[0]
    page = f"{RUNS}{run.pk}"
    return [
        f"{DATASETS}{run.dataset_id}/change/",
        f"{CASES}{case.pk}/change/",
        f"{page}/change/",
        f"{page}/compare/",
        f"{page}/export/?format=csv",
        f"{RESULTS}{result.pk}/change/",
    ]


def post(client: Client, run: Run, action: str, **data: str) -> Any:
    return client.post(f"{RUNS}{run.pk}/{action}/", data, follow=True)


def test_members_see_their_projects(run: Run, editor: Client, looker: Client) -> None:
    for client in (editor, looker, sign_in("root", is_superuser=True)):
        for page in [DATASETS, CASES, RUNS, RESULTS, *pages_of(run)]:
            assert client.get(page).status_code == 200, page
        assert "First try" in body(client.get(RUNS))
        assert "support" in body(client.get(DATASETS))


def test_a_stranger_gets_nothing(run: Run, outsider: Client) -> None:
    for page in pages_of(run):
        assert outsider.get(page).status_code == 404, page
    for page in (DATASETS, CASES, RUNS, RESULTS, f"{RESULTS}?run={run.pk}&column=0"):
        listed = body(outsider.get(page))
        assert "First try" not in listed and "support" not in listed and "greet" not in listed, page
    for action in ("cancel", "resume", "retry-errors"):
        assert post(outsider, run, action).status_code == 404
    assert outsider.post(f"{DATASETS}{run.dataset_id}/import/").status_code == 404
    assert outsider.get(f"{RUNS}add/?from={run.pk}").status_code == 404


def test_a_viewer_finds_no_buttons_and_changes_nothing(
    run: Run, looker: Client, other_project: Project
) -> None:
    # An owner elsewhere is still a viewer here.
    user = Membership.objects.get(user__username="lin").user
    Membership.objects.create(project=other_project, user=user, role=Role.OWNER)
    assert "Start again" not in body(looker.get(f"{RUNS}{run.pk}/change/"))
    assert "Import cases" not in body(looker.get(f"{DATASETS}{run.dataset_id}/change/"))
    for action in ("cancel", "resume", "retry-errors"):
        assert post(looker, run, action).status_code == 403
    assert looker.post(f"{DATASETS}{run.dataset_id}/import/").status_code == 403
    assert looker.get(f"{RUNS}add/?from={run.pk}").status_code == 403
    assert "acme" not in body(looker.get(f"{DATASETS}add/"))


def test_rows_are_written_by_services_alone(run: Run, editor: Client) -> None:
    result = run.results.order_by("pk")[0]
    for page in (
        f"{RUNS}{run.pk}/delete/",
        f"{RESULTS}{result.pk}/delete/",
        f"{RESULTS}add/",
        f"{CASES}add/",
    ):
        assert editor.post(page, {"post": "yes"}).status_code == 403, page
    editor.post(f"{RESULTS}{result.pk}/change/", {"output": "mine"})
    assert Result.objects.get(pk=result.pk).output == result.output


def queries_of(client: Client, page: str) -> list[str]:
    with CaptureQueriesContext(connection) as context:
        body(client.get(page))
    return [query["sql"] for query in context.captured_queries]


def test_lists_need_as_many_queries_for_many_rows_as_for_few(
    api: ApiClient, run: Run, ended: Callable[..., Any], editor: Client
) -> None:
    before = {page: len(queries_of(editor, page)) for page in (DATASETS, CASES, RUNS, RESULTS)}
    fill(api, "second", 30)
    fill(api, "third", 3)
    ended(dataset="second")
    ended(dataset="third")
    assert {page: len(queries_of(editor, page)) for page in before} == before


def test_lists_do_not_read_long_texts(run: Run, editor: Client) -> None:
    columns = {
        RESULTS: ["output", "scores", "error"],
        CASES: ["vars", "metadata"],
        RUNS: ["prompts", "scorers"],
    }
    for page, names in columns.items():
        table = f"evaluations_{page.rstrip('/').rpartition('/')[2]}"
        select = next(sql for sql in queries_of(editor, page) if f'SELECT "{table}"."id"' in sql)
        assert not [name for name in names if f', "{table}"."{name}",' in select], select


def test_a_data_set_is_made(editor: Client, project: Project) -> None:
    new = {"project": project.pk, "name": "tickets/2026", "description": "From the help desk"}
    assert "0 cases" in body(editor.post(f"{DATASETS}add/", new, follow=True))
    assert "There is a data set tickets/2026 already." in body(editor.post(f"{DATASETS}add/", new))
    assert "name must be 1 to 200 letters" in body(editor.post(f"{DATASETS}add/", new | {"name": "a//b"}))
    assert Dataset.objects.count() == 1


def upload(client: Client, dataset: Dataset, name: str, text: str) -> Any:
    file = SimpleUploadedFile(name, text.encode())
    return client.post(f"{DATASETS}{dataset.pk}/import/", {"file": file}, follow=True)


def test_cases_are_imported_from_files(editor: Client, project: Project) -> None:
    empty = Dataset.objects.create(project=project, name="fresh")
    assert "2 cases were imported." in body(upload(editor, empty, "a.csv", "q,expected\n1,a\n2,b\n"))
    assert "One case was imported." in body(upload(editor, empty, "a.JSONL", '{"vars": {"q": "3"}}\n'))
    assert [case.vars for case in empty.cases.order_by("pk")] == [{"q": "1"}, {"q": "2"}, {"q": "3"}]
    page = body(editor.get(f"{DATASETS}{empty.pk}/change/"))
    assert "3 cases" in page and "&quot;q&quot;" in page


def test_a_bad_file_is_refused_line_by_line(editor: Client, project: Project) -> None:
    empty = Dataset.objects.create(project=project, name="fresh")
    lines = '{"vars": {"q": 1}}\nnot json\n{"q": 1}\n'
    page = body(upload(editor, empty, "a.jsonl", lines), 422)
    assert "<td>2</td><td>is not JSON" in page
    assert "<td>3</td><td>has neither &quot;vars&quot; nor &quot;input&quot;.</td>" in page
    assert "must be named .csv, .jsonl, .ndjson" in body(upload(editor, empty, "a.xlsx", lines))
    assert "The file has no cases." in body(upload(editor, empty, "a.csv", "q\n"), 422)
    assert not Case.objects.exists()


def started_by(client: Client, project: Project, **changes: Any) -> Any:
    version = project.prompts.get(name="greet").versions.get(number=1)
    form = {
        "dataset": "support",
        "prompts": [version.pk],
        "models": ["sim"],
        "scorers": '[{"type": "equals", "value": "{{ expected }}"}]',
        "concurrency": 4,
        "repeats": 1,
        "use_cache": "on",
    }
    return client.post(f"{RUNS}add/", form | changes, follow=True)


def test_a_run_is_started_from_the_form(
    api: ApiClient, started: Any, endpoint: Any, dataset: str, editor: Client, project: Project
) -> None:
    assert "greet v1" in body(editor.get(f"{RUNS}add/?dataset=support"))
    page = started_by(editor, project, name="By hand", budget_usd="0.5")
    run = Run.objects.get()
    assert page.redirect_chain[-1][0] == f"{RUNS}{run.pk}/change/"
    assert (run.name, run.created_by, str(run.budget_usd)) == ("By hand", "ada", "0.500000")
    assert wait_for_end(api, str(run.pk))["passed"] == 5
    again = body(editor.get(f"{RUNS}add/?from={run.pk}"))
    assert 'value="By hand"' in again and len(re.findall(r" checked[ >]", again)) == 3


def test_the_form_says_what_to_change(
    started: Any, endpoint: Any, dataset: str, editor: Client, project: Project
) -> None:
    for changes, sentence in (
        ({"scorers": '[{"type": "nonsense"}]'}, "nonsense"),
        ({"scorers": '"equals"'}, "Write a list of scorers"),
        ({"concurrency": 0}, "concurrency must be between 1 and"),
        ({"budget_usd": "-1"}, "budget_usd must be above 0"),
        ({"prompts": []}, "This field is required."),
        ({"models": ["gpt"]}, "gpt is not one of the available choices"),
    ):
        assert sentence in body(started_by(editor, project, **changes)), changes
    assert not Run.objects.exists()


def test_a_run_can_only_take_what_its_project_has(
    started: Any, endpoint: Any, dataset: str, outsider: Client, project: Project
) -> None:
    page = body(started_by(outsider, project))
    assert "is not one of the available choices" in page and "greet" not in page
    assert not Run.objects.exists()


def test_the_page_of_a_run_reports(run: Run, editor: Client) -> None:
    page = body(editor.get(f"{RUNS}{run.pk}/change/"))
    assert 'aria-label="50.0%, 95 % interval 23.7% to 76.3%"' in page
    assert 'aria-label="20 of 20: 10 passed, 10 failed, 0 errors"' in page
    assert page.count('class="square square-passed"') == page.count('class="square square-failed"') == 10
    assert f"{RESULTS}?run={run.pk}&column=1&state__exact=failed" in page.replace("&amp;", "&")
    assert "<b>contains</b>" in page
    assert "What did not pass" in page


def test_pages_have_no_script_of_their_own(run: Run, editor: Client) -> None:
    Result.objects.filter(run=run).update(output="<script>alert(1)</script>")
    for page in [RESULTS, *pages_of(run)]:
        if "export" not in page:
            text = body(editor.get(page))
            assert "<script>" not in text and "onclick=" not in text, page
            policy = editor.get(page).headers["Content-Security-Policy"]
            assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def slow(project: Project) -> None:
    create_endpoint(
        project, name="slow", provider="simulated", settings={"output": "expected", "latency_ms": 150}
    )


def test_a_run_is_cancelled_and_resumed(
    api: ApiClient, started: Callable[..., Any], endpoint: Any, project: Project, editor: Client
) -> None:
    slow(project)
    run = Run.objects.get(pk=started(models=["slow"], concurrency=1)["id"])
    assert "Time so far" in body(editor.get(f"{RUNS}{run.pk}/change/"))
    assert "The run is cancelled." in body(post(editor, run, "cancel"))
    assert "The run has ended already: it is cancelled." in body(post(editor, run, "cancel"))
    assert executor.wait_idle(20)
    assert "must be a number of dollars" in body(post(editor, run, "resume", budget_usd="much"))
    Run.objects.filter(pk=run.pk).update(concurrency=10)
    assert "The run goes on." in body(post(editor, run, "resume"))
    assert wait_for_end(api, str(run.pk))["passed"] == 10
    assert editor.get(f"{RUNS}{run.pk}/cancel/").status_code == 405


def test_errors_are_retried(api: ApiClient, ended: Any, project: Project, editor: Client) -> None:
    create_endpoint(project, name="broken", provider="simulated", settings={"error_rate": 1.0})
    run = Run.objects.get(pk=ended(models=["broken"])["id"])
    page = body(editor.get(f"{RUNS}{run.pk}/change/"))
    assert "Retry 10 errors" in page and "<b>unavailable</b> 10" in page
    before = set(run.results.values_list("pk", flat=True))
    assert "The errors are tried again." in body(post(editor, run, "retry-errors"))
    assert wait_for_end(api, str(run.pk))["errors"] == 10
    assert before.isdisjoint(run.results.values_list("pk", flat=True))


def test_a_run_without_errors_has_none_to_retry(run: Run, editor: Client) -> None:
    assert "The run has no errors." in body(post(editor, run, "retry-errors"))


def test_results_are_filtered(run: Run, editor: Client) -> None:
    for query, count in (
        ("", 20),
        (f"run={run.pk}", 20),
        (f"run={run.pk}&column=1", 10),
        ("state__exact=failed", 10),
        (f"run={run.pk}&column=0&state__exact=passed", 5),
        ("score_from=0.9&score_to=1", 10),
        ("run=nonsense", 0),
        ("run=00000000-0000-0000-0000-000000000000", 0),
        (f"run={run.pk}&column=nonsense", 20),
    ):
        found = editor.get(f"{RESULTS}?{query}", follow=True)
        assert found.context["cl"].result_count == count, query


def test_a_result_shows_what_was_asked_and_how_it_was_judged(
    run: Run, editor: Client, project: Project, actor: Any
) -> None:
    add_version(project.prompts.get(name="greet"), template="Shout {{ q }}", actor=actor)
    result = run.results.filter(state="failed", column=0).order_by("pk")[0]
    page = body(editor.get(f"{RESULTS}{result.pk}/change/"))
    assert "Say support 1" in page and "Shout" not in page
    assert "something else" in page
    assert "equals" in page and "contains" in page
    assert "The same case elsewhere in this run" in page


def test_two_columns_are_compared(run: Run, editor: Client) -> None:
    page = body(editor.get(f"{RUNS}{run.pk}/compare/"))
    assert "No difference can be told from chance" in page
    assert "over 10 pairs: both passed 0, only A 5, only B 5, neither 0" in page
    assert page.count('class="table halves"') == 2
    same = body(editor.get(f"{RUNS}{run.pk}/compare/?a={run.pk}:0&b={run.pk}:0"))
    assert "choose two columns, or another run" in same


def test_two_runs_are_compared(run: Run, ended: Any, editor: Client, looker: Client) -> None:
    other = ended(models=["sim"], name="Second try")["id"]
    page = body(editor.get(f"{RUNS}{other}/compare/"))
    assert "First try" in page and "both passed 5, only A 0" in page
    page = body(looker.get(f"{RUNS}{run.pk}/compare/?a={run.pk}:1&b={other}:0"))
    assert "over 10 pairs: both passed 0, only A 5, only B 5, neither 0" in page


def test_nothing_foreign_can_be_compared(
    run: Run, ended: Any, editor: Client, other_project: Project
) -> None:
    own = ended(models=["sim"])["id"]
    Run.objects.filter(pk=run.pk).update(project=other_project)
    assert "First try" not in body(editor.get(f"{RUNS}{own}/compare/"))
    for b in (f"{run.pk}:0", "nonsense", f"{own}:x", f"{own}:9"):
        page = body(editor.get(f"{RUNS}{own}/compare/?b={b}"))
        assert 'class="notice"' in page and "pairs" not in page, b


def test_a_run_is_exported(run: Run, editor: Client) -> None:
    response = editor.get(f"{RUNS}{run.pk}/export/?format=csv")
    assert len(response.getvalue().splitlines()) == 21
    assert editor.get(f"{RUNS}{run.pk}/export/?format=exe").status_code == 404


def test_the_way_around_fits_the_user(run: Run, editor: Client) -> None:
    root = sign_in("root", is_superuser=True)
    titles = [item["title"] for item in root.get(RUNS).context["sidebar_navigation"][0]["items"]]
    work = ["Prompts", "Models", "Data sets", "Runs", "Results"]
    assert titles == ["Dashboard", *work, "Keys", "Projects"]
    titles = [item["title"] for item in editor.get(RUNS).context["sidebar_navigation"][0]["items"]]
    assert titles == ["Dashboard", *work]


def test_superusers_alone_add_people(editor: Client) -> None:
    password = "a long enough one"
    new = {"username": "grace", "password1": password, "password2": password, "usable_password": "true"}
    page = "/admin/auth/user/add/"
    assert editor.post(page, new).status_code == 403
    root = sign_in("root", is_superuser=True)
    assert "grace" in body(root.post(page, new | {"is_staff": "on"}, follow=True))
    assert Client().login(username="grace", password=password)
