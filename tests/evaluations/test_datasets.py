"""Data sets over REST: names, cases, imports."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import override_settings

from evaluations.importing import MAX_COLUMNS, MAX_LINE_BYTES, MAX_REPORTED_LINES
from evaluations.models import Case, Dataset
from tests.evaluations.conftest import fill

pytestmark = pytest.mark.django_db
CSV = "text/csv"
JSONL = "application/x-ndjson"


@pytest.fixture
def name(api: Any) -> str:
    """An empty data set in a folder."""
    return str(api.post("/api/v1/datasets", {"name": "team/faq"}).expect(201)["name"])


def send(api: Any, name: str, content: str | bytes, content_type: str = CSV) -> Any:
    body = content.encode() if isinstance(content, str) else content
    return api.request("POST", f"/api/v1/datasets/{name}/import", body, content_type=content_type)


def cases_of(api: Any, name: str) -> list[Any]:
    items: list[Any] = api.get(f"/api/v1/datasets/{name}/cases?limit=200").expect(200)["items"]
    return [{key: value for key, value in case.items() if key != "id"} for case in items]


def case(**changes: Any) -> dict[str, Any]:
    return {"vars": {}, "expected": None, "metadata": {}, "scorers": []} | changes


def test_a_data_set_has_a_name_of_its_own(api: Any, name: str) -> None:
    shown = api.get(f"/api/v1/datasets/{name}").expect(200)
    assert (shown["name"], shown["description"], shown["cases"]) == ("team/faq", "", 0)
    assert "already" in api.post("/api/v1/datasets", {"name": name}).expect(409)["detail"]
    for bad in ("", " x", "a//b", "/a", "a\x00", "x" * 201, "team/cases", "import"):
        assert api.post("/api/v1/datasets", {"name": bad}).expect(422)["code"] == "invalid", bad
    assert [item["name"] for item in api.get("/api/v1/datasets").expect(200)["items"]] == [name]


def test_cases_are_added_one_by_one_or_many_at_once(api: Any, name: str) -> None:
    url = f"/api/v1/datasets/{name}/cases"
    one = api.post(url, {"vars": {"q": 1}, "expected": "a"}).expect(201)
    assert one["id"] and one["vars"] == {"q": 1}
    assert len(api.post(url, [{"vars": {}}, {"vars": {"q": [1]}, "metadata": {"a": 1}}]).expect(201)) == 2
    assert api.get(f"/api/v1/datasets/{name}").expect(200)["cases"] == 3
    wrong = {"vars": {}, "scorers": [{"type": "equal", "value": 1}]}
    refused = api.post(url, [{"vars": {}}, wrong]).expect(422)
    assert refused["detail"].startswith("Nothing was imported. case 2: scorers[0].type (equal): is no known")
    assert "extra" in api.post(url, {"vars": {}, "extra": 1}).expect(422)["detail"]
    assert Case.objects.count() == 3


def test_csv_columns_become_variables(api: Any, name: str) -> None:
    header = "\ufeffq,__expected,__metadata:area,__metadata:tags[],__description\r\n"
    text = header + '"a, ""b""\nc",yes,x,"1,2\\,3",d\r\n\r\n'
    assert send(api, name, text).expect(201) == {"imported": 1}
    metadata = {"area": "x", "tags": ["1", "2,3"], "description": "d"}
    assert cases_of(api, name) == [case(vars={"q": 'a, "b"\nc'}, expected="yes", metadata=metadata)]


def test_json_lines_are_ours_or_openai_evals(api: Any, name: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    rows = [
        {"vars": {"q": {"deep": [1]}}, "expected": {"a": 1}, "metadata": {"k": "v"}},
        {"input": messages, "ideal": "x", "id": 7},
        {"input": "plain", "ideal": ["x", "y"]},
    ]
    body = b"\n".join(msgspec.json.encode(row) for row in rows)
    assert send(api, name, body, JSONL).expect(201) == {"imported": 3}
    assert cases_of(api, name) == [
        case(**rows[0]),
        case(vars={"input": messages}, expected="x", metadata={"id": 7}),
        case(vars={"input": "plain"}, expected=["x", "y"]),
    ]


@pytest.mark.parametrize(
    ("content", "content_type", "sentence"),
    [
        ("\n", CSV, "has no header"),
        ("q\n", CSV, "has no cases"),
        ("q,q\n1,2\n", CSV, "names q more than once"),
        (",".join(map(str, range(MAX_COLUMNS + 1))), CSV, "names 1,001 columns; the limit is 1,000"),
        ("q,\n1,2\n", CSV, "Column 2 of the header has no name"),
        ("q,expected,__expected\n", CSV, "both expected and __expected"),
        ("q,__prefix\n1,2\n", CSV, "__prefix is not supported"),
        ("q,a\n1,2\n3\n", CSV, "line 3: has 1 values, the header has 2 columns"),
        ('q\n"open\n', CSV, "line 2: unexpected end of data"),
        (b"q\n\xff\n", CSV, "line 2: is not UTF-8"),
        ("q\na\0b\n", CSV, "line 2: contains a NUL"),
        ("\n", JSONL, "has no cases"),
        ("[1]\n", JSONL, "line 1: must be an object"),
        ('{"vars": {}}\n{"a": 1}\n', JSONL, 'line 2: has neither "vars" nor "input"'),
        ('{"vars": 1}\n', JSONL, "line 1: Expected `object`"),
        ('{"vars": {}, "x": 1}\n', JSONL, "unknown field `x`"),
        ('{"vars": {"a": "\\u0000"}}\n', JSONL, "line 1: contains a NUL"),
        (b'{"vars": {"a": "\xff"}}\n', JSONL, "line 1: is not"),
        ('{"input": 5}\n', JSONL, '"input" must be text or a list'),
        ("{\n", JSONL, "line 1: is not JSON"),
        ("[" * 100_000, JSONL, "line 1: is not JSON"),
        ('{"vars": {"a": ' + "[" * 900 + "]" * 900 + "}}\n", JSONL, "line 1: is nested too deeply"),
        (b"x" * (MAX_LINE_BYTES + 70_000), JSONL, "line 1: is longer than 2 MiB"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(
    api: Any, name: str, content: Any, content_type: str, sentence: str
) -> None:
    assert sentence in send(api, name, content, content_type).expect(422)["detail"]
    assert not Case.objects.exists()


def test_every_bad_line_is_named_up_to_a_limit(api: Any, name: str) -> None:
    body = "q,a\n1,2\n" + "3\n" * 30
    refused = send(api, name, body).expect(422)
    assert [bad["line"] for bad in refused["errors"]] == list(range(3, 3 + MAX_REPORTED_LINES))
    assert refused["detail"].endswith("; and 10 more")
    assert Dataset.objects.get().case_count == 0


def test_a_form_with_a_file_works_as_well(client: Any, api: Any, name: str) -> None:
    def upload(**files: Any) -> Any:
        return client.post(f"/api/v1/datasets/{name}/import", files, headers=api._headers)

    response = upload(file=SimpleUploadedFile("cases.csv", b"q\n1\n2\n"))
    assert (response.status_code, response.json()) == (201, {"imported": 2})
    assert upload(file=SimpleUploadedFile("cases.pdf", b"q")).status_code == 422
    assert upload().status_code == 422
    assert send(api, name, "{}", "application/json").expect(415)["code"] == "unsupported_media_type"


def test_too_large_a_file_is_refused_while_it_is_read(api: Any, name: str) -> None:
    with override_settings(MAX_IMPORT_BYTES=100_000):
        body = b'{"vars": {"q": "x"}}\n' * 10_000
        assert send(api, name, body, JSONL).expect(413)["code"] == "too_large"
    assert not Case.objects.exists()


def test_memory_does_not_grow_with_the_file(api: Any, name: str) -> None:
    def peak_of(lines: int) -> int:
        body = b'{"vars": {"q": "%s"}}\n' % (b"x" * 500) * lines
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        send(api, name, body, JSONL).expect(201)
        return tracemalloc.get_traced_memory()[1] - before - len(body)

    peak_of(10)
    tracemalloc.start()
    try:
        small, large = peak_of(1_000), peak_of(4_000)
    finally:
        tracemalloc.stop()
    assert large < small + 1_000_000


def test_lists_cost_the_same_for_any_length(
    api: Any, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    fill(api, "one", 12)
    for index in range(5):
        fill(api, f"n{index}", 1)
    api.get("/api/v1/datasets").expect(200)
    with django_assert_num_queries(1):
        assert len(api.get("/api/v1/datasets").expect(200)["items"]) == 6
    with django_assert_num_queries(2):
        page = api.get("/api/v1/datasets/one/cases?limit=5").expect(200)
    rest = api.get(f"/api/v1/datasets/one/cases?limit=50&cursor={page['next_cursor']}").expect(200)
    assert len(page["items"]) == 5 and len(rest["items"]) == 7 and rest["next_cursor"] is None


def test_others_see_nothing_and_viewers_change_nothing(
    api: Any, viewer: Any, stranger: Any, nobody: Any, name: str
) -> None:
    reads = [f"/api/v1/datasets/{name}", f"/api/v1/datasets/{name}/cases"]
    for url in reads:
        viewer.get(url).expect(200)
        stranger.get(url).expect(404)
        nobody.get(url).expect(401)
    assert stranger.get("/api/v1/datasets").expect(200)["items"] == []
    nobody.get("/api/v1/datasets").expect(401)
    for url, body in (("", {"name": "x"}), (f"/{name}/cases", {"vars": {}})):
        viewer.post(f"/api/v1/datasets{url}", body).expect(403)
        nobody.post(f"/api/v1/datasets{url}", body).expect(401)
    stranger.post(f"/api/v1/datasets/{name}/cases", {"vars": {}}).expect(404)
    send(stranger, name, "q\n1\n").expect(404)
    send(viewer, name, "q\n1\n").expect(403)
    send(nobody, name, "q\n1\n").expect(401)
    assert not Case.objects.exists()
