"""What comes out of runs: results, reports, comparisons, exports."""

import csv
import io
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.models import Result, Run
from prompts.models import Prompt
from prompts.services import add_version
from tests.evaluations.conftest import EQUALS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def two(ended: Any, prompt: Prompt, project: Project, actor: Actor) -> dict[str, Any]:
    """A finished run of two columns: version 1 passes every second case, version 2 none."""
    add_version(prompt, template="Tell {{ q }}", actor=actor)
    prompts = [{"name": "greet", "version": 1}, {"name": "greet", "version": 2}]
    return ended(prompts=prompts, scorers=[EQUALS[0] | {"metric": "exact"}])


def items(api: Any, run: dict[str, Any], query: str = "") -> list[Any]:
    found: list[Any] = api.get(f"/api/v1/runs/{run['id']}/results?limit=200&{query}").expect(200)["items"]
    return found


def test_results_are_filtered(api: Any, two: dict[str, Any]) -> None:
    assert len(items(api, two)) == 20
    assert {row["state"] for row in items(api, two, "state=passed")} == {"passed"}
    assert len(items(api, two, "min_score=1")) == 5 and len(items(api, two, "max_score=0.5")) == 15
    assert len(items(api, two, "version=2&prompt=greet&model=sim")) == 10
    assert len(items(api, two, "column=0&cached=false&min_latency_ms=0")) == 10
    assert items(api, two, "model=gone") == [] and items(api, two, "max_latency_ms=-1") == []
    case = items(api, two)[0]["case"]
    assert len(items(api, two, f"case={case}")) == 2
    for bad in ("state=odd", "sort=age", "limit=0", "extra=1", "cursor=x", f"case={10**19}", "case=-1"):
        api.get(f"/api/v1/runs/{two['id']}/results?{bad}").expect(422)


@pytest.mark.parametrize("sort", ["id", "-id", "score", "-score", "latency", "-latency"])
def test_results_are_sorted_with_the_unknown_last(
    api: Any, two: dict[str, Any], sort: str, django_assert_num_queries: Any
) -> None:
    unknown = list(Result.objects.order_by("pk").values_list("pk", flat=True)[:3])
    Result.objects.filter(pk__in=unknown).update(score=None, latency_ms=None)
    seen: list[Any] = []
    cursor = ""
    while cursor is not None:
        with django_assert_num_queries(2):
            page = api.get(f"/api/v1/runs/{two['id']}/results?sort={sort}&limit=7{cursor}").expect(200)
        seen += page["items"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert len({row["id"] for row in seen}) == len(seen) == 20
    field = {"score": "score", "latency": "latency_ms", "id": "id"}[sort.lstrip("-")]
    values = [row[field] for row in seen if row[field] is not None]
    assert values == sorted(values, reverse=sort.startswith("-"))
    if field != "id":
        assert {row["id"] for row in seen[-3:]} == set(unknown)


def test_a_report_has_one_entry_a_column(api: Any, two: dict[str, Any]) -> None:
    report = api.get(f"/api/v1/runs/{two['id']}/report").expect(200)
    first, second = report["columns"]
    assert (first["cells"], first["passed"], first["failed"], first["errors"]) == (10, 5, 5, 0)
    assert first["pass_rate"] == first["mean_score"] == 0.5 and second["pass_rate"] == 0
    low, high = first["pass_rate_ci95"]
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-3)  # Wilson, 5 of 10
    assert first["metrics"] == {"exact": {"mean": 0.5, "count": 10}}
    assert first["latency_ms"]["p50"] is not None and first["tokens"]["input"] > 0
    assert report["done"] == report["total"] == 20 and report["wall_s"] > 0
    assert api.get(f"/api/v1/runs/{two['id']}/report").expect(200) == report


def test_an_error_is_in_no_rate(api: Any, two: dict[str, Any]) -> None:
    passed = Result.objects.filter(column=0, state="passed").values_list("pk", flat=True)[:2]
    Result.objects.filter(pk__in=list(passed)).update(state="error", score=None, scores=[])
    first = api.get(f"/api/v1/runs/{two['id']}/report").expect(200)["columns"][0]
    assert (first["passed"], first["failed"], first["errors"]) == (3, 5, 2)
    assert first["pass_rate"] == first["mean_score"] == 3 / 8


def test_a_report_of_nothing_knows_nothing(api: Any, two: dict[str, Any]) -> None:
    Result.objects.all().delete()
    first = api.get(f"/api/v1/runs/{two['id']}/report").expect(200)["columns"][0]
    assert first["pass_rate"] is first["mean_score"] is first["latency_ms"]["p99"] is None
    assert first["pass_rate_ci95"] is None and first["cells"] == 0
    compared = api.get(f"/api/v1/runs/{two['id']}/compare/{two['id']}").expect(200)
    assert (compared["pairs"], compared["difference"], compared["p_value"]) == (0, None, None)


def test_one_column_is_compared_with_another_run(api: Any, ended: Any) -> None:
    run = ended()
    refused = api.get(f"/api/v1/runs/{run['id']}/compare/{run['id']}").expect(422)
    assert "The run has one column" in refused["detail"] and "name another run" in refused["detail"]


def test_two_columns_are_compared_by_cell(api: Any, two: dict[str, Any]) -> None:
    compared = api.get(f"/api/v1/runs/{two['id']}/compare/{two['id']}?limit=2").expect(200)
    table = [compared[name] for name in ("both_passed", "only_a", "only_b", "both_failed", "left_out")]
    assert table == [0, 5, 0, 5, 0] and compared["difference"] == compared["score_difference"] == -0.5
    assert compared["p_value"] == pytest.approx(2 * 0.5**5)  # McNemar, exact: 5 against 0
    low, high = compared["difference_ci95"]
    assert low < -0.5 < high < 0
    assert [test["metric"] for test in compared["metrics"]] == ["exact"]
    assert len(compared["regressions"]) == 2 and compared["improvements"] == []
    assert (compared["a"]["pass_rate"], compared["b"]["version"]) == (0.5, 2)
    turned = api.get(f"/api/v1/runs/{two['id']}/compare/{two['id']}?column_a=1&column_b=0").expect(200)
    assert turned["difference"] == 0.5 and len(turned["improvements"]) == 5


def test_two_runs_are_compared_by_cell(api: Any, two: dict[str, Any], ended: Any) -> None:
    other = ended(repeats=2, prompts=[{"name": "greet", "version": 1}])
    compared = api.get(f"/api/v1/runs/{two['id']}/compare/{other['id']}").expect(200)
    assert (compared["pairs"], compared["left_out"], compared["both_passed"]) == (10, 10, 5)
    url = f"/api/v1/runs/{two['id']}/compare/{two['id']}"
    assert "the same" in api.get(f"{url}?column_a=1&column_b=1").expect(422)["detail"]
    assert "column_b" in api.get(f"{url}?column_b=7").expect(422)["detail"]
    assert "limit" in api.get(f"{url}?limit=0").expect(422)["detail"]
    Run.objects.filter(pk=other["id"]).update(dataset=_other_dataset(api))
    assert (
        "different data sets"
        in api.get(f"/api/v1/runs/{two['id']}/compare/{other['id']}").expect(422)["detail"]
    )


def _other_dataset(api: Any) -> Any:
    from evaluations.models import Dataset

    api.post("/api/v1/datasets", {"name": "else"}).expect(201)
    return Dataset.objects.get(name="else")


def exported(api: Any, run: dict[str, Any], format: str) -> str:
    answer = api.get(f"/api/v1/runs/{run['id']}/export?format={format}")
    assert "attachment" in answer.headers["Content-Disposition"]
    content: bytes = answer.expect(200)
    return content.decode()


def test_exports_hold_every_result(api: Any, two: dict[str, Any]) -> None:
    rows = [msgspec.json.decode(line) for line in exported(api, two, "jsonl").splitlines()]
    assert len(rows) == 20 and rows[0]["vars"]["q"].startswith("support") and rows[0]["tokens"]["output"]
    table = list(csv.DictReader(io.StringIO(exported(api, two, "csv"))))
    assert [int(row["id"]) for row in table] == [row["id"] for row in rows]
    root = ElementTree.fromstring(exported(api, two, "junit"))
    assert [suite.get("name") for suite in root] == ["greet v1 [sim]", "greet v2 [sim]"]
    assert [(suite.get("tests"), suite.get("failures")) for suite in root] == [("10", "5"), ("10", "10")]
    assert len(root.findall(".//failure")) == 15
    assert "format must be" in api.get(f"/api/v1/runs/{two['id']}/export?format=pdf").expect(422)["detail"]


def test_exports_execute_nothing_and_stay_well_formed(api: Any, two: dict[str, Any]) -> None:
    Result.objects.filter(column=0).update(output="=cmd|' /C calc'!A0")
    Result.objects.filter(column=1).update(output="\x01<&]]>\ufffe", state="error", error='a "\x02" <b>')
    table = list(csv.DictReader(io.StringIO(exported(api, two, "csv"))))
    assert table[0]["output"] == "'=cmd|' /C calc'!A0"
    root = ElementTree.fromstring(exported(api, two, "junit"))
    assert root.findall(".//error")[0].get("message") == 'a "\ufffd" <b>'
