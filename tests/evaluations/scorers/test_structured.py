"""JSON scorers: strict parsing, bounded search, schemas that fetch nothing."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from evaluations.scorers import Output, ScorerError, ScorerSpec, assess, parse_scorers
from tests.evaluations.scorers.verdicts import judged, verdict

PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("output", "passes"),
    [
        ('{"a": 1}', True),
        (" [1, 2]\n", True),
        ("3", True),
        ('"text"', True),
        ("null", True),
        ("", False),
        ("{'a': 1}", False),
        ('{"a": 1,}', False),
        ("NaN", False),
        ("[Infinity]", False),
        ('\ufeff{"a": 1}', False),
        ('{"a": 1} and more', False),
        ('"line\nbreak"', False),
    ],
)
def test_is_json_is_as_strict_as_json_parse(output, passes):
    assert verdict("is-json", None, output) is passes


@pytest.mark.parametrize("schema", [PERSON, '{"required": ["name"]}', "required:\n  - name\ntype: object"])
def test_is_json_of_a_schema(schema):
    assert verdict("is-json", schema, '{"name": "Ann"}') is True
    assert verdict("is-json", schema, '{"age": 3}') is False
    assert verdict("is-json", schema, "Ann") is False


@pytest.mark.parametrize(
    ("output", "value", "passes"),
    [
        ('Sure: ```json\n{"name": "Ann"}\n```', None, True),
        ("the list [1, 2] is it", None, True),
        ("no { json } [here", None, False),
        ("42", None, False),
        ('{"age": 3} or {"name": "Ann"}', PERSON, True),
        ('{"age": 3} or {"name": 1}', PERSON, False),
        ("{x} {y} [z] [1]", {"type": "array"}, True),
        ("nothing", PERSON, False),
    ],
)
def test_contains_json_finds_objects_and_arrays_in_prose(output, value, passes):
    assert verdict("contains-json", value, output) is passes


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "pattern": r"^\d+$"}, '"12"', '"12\\n"'),
        ({"type": "string", "pattern": "^\\p{Lu}"}, '"Éa"', '"éa"'),
        ({"type": "string", "format": "date-time"}, '"2024-05-06T07:08:09Z"', '"2024-13-06T07:08:09Z"'),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2023-02-29"'),
        ({"type": "string", "format": "uri"}, '"https://example.org/a"', '"no uri"'),
        ({"type": "string", "format": "uuid"}, '"2b7e1516-28ae-4d2a-abf7-158809cf4f3c"', '"2b7e"'),
        ({"patternProperties": {"^n_": {"type": "number"}}}, '{"n_a": 1, "x": "y"}', '{"n_a": "1"}'),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, '{"n_a": 1}', '{"m": 1}'),
        ({"additionalProperties": {"type": "number"}}, '{"a": 1}', '{"a": "1"}'),
        ({"properties": {"a": {}}, "additionalProperties": False}, '{"a": 1}', '{"a": 1, "b": 2}'),
        ({"items": [{"type": "number"}]}, '[1, "a"]', '["a"]'),
        (
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "number"}]},
            "[1]",
            '["a"]',
        ),
        ({"$ref": "#/definitions/n", "definitions": {"n": {"type": "number"}}}, "1", '"a"'),
    ],
)
def test_schema_keywords(schema, good, bad):
    assert verdict("is-json", schema, good) is True
    assert verdict("is-json", schema, bad) is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        7,
        "[1, 2]",
        "a: b: c",
        {"pattern": "("},
        {"patternProperties": {"((a{1000}){1000})": {}}},
        {"unevaluatedProperties": False, "patternProperties": {"(a|aa)+$": {}}},
        "a: &a [x, x]\nb: [*a, *a]",
        {"$schema": 3},
    ],
)
def test_an_invalid_schema_is_refused_when_the_run_starts(schema):
    with pytest.raises(ScorerError, match=r"scorers\[0\]\.value \(is-json\): "):
        parse_scorers([{"type": "is-json", "value": schema}])


@pytest.mark.parametrize("type_", ["is-json", "not-is-json", "contains-json", "not-contains-json"])
def test_an_invalid_schema_from_a_template_fails_both_forms(type_):
    (row,) = assess([ScorerSpec(type_, {"type": "strin"})], Output('{"a": 1}')).scores
    assert (row.passed, row.value, row.error) == (False, 0.0, None)
    assert row.reason.startswith("Invalid JSON schema: ")


def test_a_schema_fetches_nothing():
    asked = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        row = judged("is-json", {"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"}, "{}")
        server.shutdown()
        thread.join()
    assert (row.passed, asked) == (False, [])
    assert "cannot be resolved" in row.reason


@pytest.mark.parametrize("type_", ["is-json", "not-is-json"])
def test_a_catastrophic_pattern_in_a_schema_is_an_error(type_):
    row = judged(type_, {"pattern": "(a|aa)+$"}, '"' + "a" * 100 + 'b"')
    assert row.passed is None
    assert "took more than" in (row.error or "")


def test_unfinished_brackets_are_searched_in_bounded_time():
    row = judged("contains-json", None, '{"a": [1, ' * 5_000)
    assert row.passed is not True
    assert judged("contains-json", None, "[" * 200_000).passed is not True


def test_json_nested_too_deeply_is_an_error():
    assert judged("is-json", None, "[" * 100_000 + "]" * 100_000).passed is None
