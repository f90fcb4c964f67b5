"""Rendering: what templates give, what they may not do, and that nothing they do takes long."""

import contextlib
import threading
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts import metering
from prompts.rendering import MAX_OUTPUT_BYTES, RenderError, compiled, render, render_value, variables

CHAT = [
    {"role": "system", "content": "You are {{ persona }}."},
    {"type": "placeholder", "name": "history"},
    {"role": "user", "content": "{{ question }}"},
]


def text(template: str, **vars: object) -> str:
    return str(render(template, "text", vars)[0]["content"])


def test_a_text_prompt_is_one_user_message():
    assert render("Hi {{ name }}!\n", "text", {"name": "Ada"}) == [{"role": "user", "content": "Hi Ada!\n"}]


def test_a_chat_prompt_keeps_its_roles_and_places_the_history():
    history = [{"role": "user", "content": "{{ not rendered }}"}, {"role": "assistant", "content": "ok"}]
    messages = render(CHAT, "chat", {"persona": "kind", "question": "Why?", "history": history})
    assert messages == [
        {"role": "system", "content": "You are kind."},
        *history,
        {"role": "user", "content": "Why?"},
    ]


def test_parts_of_a_content_are_rendered():
    parts = [
        {"type": "text", "text": "See {{ what }}"},
        {"type": "image_url", "image_url": {"url": "{{ url }}"}},
    ]
    [message] = render(
        [{"role": "user", "content": parts}], "chat", {"what": "this", "url": "https://x/y.png"}
    )
    assert message["content"] == [
        {"type": "text", "text": "See this"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]
    assert variables([{"role": "user", "content": parts}]) == ["url", "what"]


def test_values_of_variables_are_never_templates():
    assert text("{{ input }}", input="{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_lists_and_dictionaries_print_as_json():
    assert text("{{ items }}", items=[1, "é", {"a": None}]) == '[1, "é", {"a": null}]'


def test_a_key_comes_before_a_method_of_the_same_name():
    assert text("{{ order.items }}", order={"items": "3 pens"}) == "3 pens"
    assert text("{% for k, v in order.items() %}{{ k }}={{ v }};{% endfor %}", order={"a": 1}) == "a=1;"


def test_scorer_values_are_rendered():
    assert render_value("{{ expected }}", {"expected": "yes"}) == "yes"


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ 'a,b' .split(',') | join('-') }}", "a-b"),
        ("{{ '%.2f' | format(1.234) }} {{ '%s!' % 'hi' }}", "1.23 hi!"),
        ("{{ 'axa'.strip('a') }} {{ ' y ' | trim }} {{ 'aXa'.replace('X', '--') }}", "x y a--a"),
        ("{{ {'a': [1]} | tojson }} {{ 'x' ~ 1 ~ none }}", '{"a": [1]} x1None'),
        ("{{ [1, 2] + [3] }} {{ 'ab' * 2 }} {{ 'abc'[1:] }} {{ (1, 2)[0] }}", "[1, 2, 3] abab bc 1"),
        ("{{ 2 ** 10 }} {{ 7 // 2 }} {{ 1.256 | round(2) }} {{ [1, 2] | sum }}", "1024 3 1.26 3"),
        ("{% for x in [1, 2] %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) }}{{ f(2) }}", "<1><2>"),
        (
            "{% set s = namespace(n=0) %}{% for i in range(3) %}{% set s.n = s.n + i %}{% endfor %}{{ s.n }}",
            "3",
        ),
        ("{{ 5 is odd }} {{ 6 is divisibleby 3 }} {{ 'a' in ['a'] }} {{ 1 < 2 }}", "True True True True"),
        ("{{ ['b', 'a'] | sort | map('upper') | list }}", '["A", "B"]'),
        ("{{ [3, 1] | max }} {{ [{'n': 1}, {'n': 2}] | sum(attribute='n') }}", "3 3"),
        (
            "{{ 'a\nb' | indent(2) }}|{{ '<b>' | escape }}|{{ [1,2,3] | batch(2) | list }}",
            "a\n  b|&lt;b&gt;|[[1, 2], [3]]",
        ),
        ("{{ user.name | default('nobody') }} {{ x is defined }}", "nobody False"),
        ("{% if items %}some{% else %}none{% endif %}", "none"),
        ("{% filter upper %}a{% endfilter %}{% set b %}c{% endset %}{{ b }}", "Ac"),
    ],
)
def test_the_language(template: str, rendered: str):
    assert text(template, user={}, items=[]) == rendered


def test_all_missing_variables_are_named():
    with pytest.raises(RenderError) as caught:
        text("{{ a }} {{ b.c }} {{ d | default('x') }} {% if e is defined %}{{ e }}{% endif %}", z=1)
    assert caught.value.missing == ["a", "b"]
    assert "a, b" in str(caught.value)


def test_a_missing_history_is_named():
    with pytest.raises(RenderError) as caught:
        render(CHAT, "chat", {"persona": "kind", "question": "?"})
    assert caught.value.missing == ["history"]


@pytest.mark.parametrize("history", ["text", [1], [{"content": "no role"}], None])
def test_a_history_must_be_messages(history: object):
    with pytest.raises(RenderError, match="list of messages"):
        render(CHAT, "chat", {"persona": "kind", "question": "?", "history": history})


def test_a_missing_attribute_is_named():
    with pytest.raises(RenderError, match="name"):
        text("{{ user.name }}", user={})


def test_unknown_variables_are_refused_where_asked():
    assert text("{{ a }}", a=1, b=2) == "1"
    with pytest.raises(RenderError) as caught:
        render("{{ a }}", "text", {"a": 1, "b": 2}, refuse_unknown=True)
    assert caught.value.unknown == ["b"]


def test_a_wrong_template_names_its_line():
    with pytest.raises(RenderError, match="line 3"):
        variables("fine\n\n{{ a b }}")


def test_variables_are_sorted_and_without_globals():
    assert variables("{{ b }}{% for x in range(a) %}{{ x }}{% endfor %}{% set c = 1 %}{{ c }}") == ["a", "b"]
    assert variables(CHAT) == ["history", "persona", "question"]


GROW = "{% set ns = namespace(x='aaaaaaaaaa', l=[1], t=(1,)) %}{% for i in range(5000) %}%s{% endfor %}"
NESTED = "{% set s = namespace(x={}) %}{% for i in range(60) %}{% set s.x = %s %}{% endfor %}"

ATTACKS = [
    "{{ 'a' * 200_000_000 }}",
    "{{ 200_000_000 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ ('a' * 1000000) * 1000 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) if false %}{% endfor %}" * 50
    + "{% for a in range(9999) %}{% for b in range(9999) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "{% set x %}{% for a in range(999) %}{% for b in range(9999) %}xxx{% endfor %}{% endfor %}{% endset %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' | format(1.0) }}",
    "{{ '%1000000000d' is odd }}",
    "{{ '%1000000000d' is divisibleby(1) }}",
    "{{ ['%1000000000d'] | select('even') | list }}",
    "{{ ['%1000000000d'] | map('format', 1) | list }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{0[x]}'.format_map({}) }}",
    "{{ 'a'.center(10**9) }}{{ 'a'.ljust(10**9) }}{{ 'a'.zfill(10**9) }}{{ '\t'.expandtabs(10**9) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a' | indent(10**9, true) }}",
    "{{ ('\n' * 1000000) | indent(100, true) }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | batch(0) | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ 1 | round(10**9, 'ceil') }}",
    "{{ 'a' | round(9, 'ceil') }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 2 ** 4000 ** 2 }}",
    "{{ (-3) ** 1000000000 }}",
    "{{ ('f' * 1000000) | int(base=16) * 7 }}",
    "{{ ('9' * 4000) | int * 7 }}",
    "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('b' * 1000000).join(('a' * 1000000) | list) }}",
    "{{ ('a' * 1000000) | join('b' * 1000000) }}",
    "{{ (['a' * 1000000] * 1000) | join }}",
    "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "{{ ('a' * 1000000) | trim('b' * 1000000 ~ 'a') }}",
    "{{ [[1] * 1000] * 1000 | sum(start=[]) }}",
    "{{ ([[1]] * 9999) | sum(start=[]) }}",
    "{{ [{'a': 1}] * 9999 | sort(attribute='a,' * 100000 ~ 'a') }}",
    "{{ ([{'a': 1}] * 9999) | sort(attribute='a,' * 100000 ~ 'a') }}",
    "{{ ['x' * 1000000] * 100000 | sort }}",
    "{{ (['x' * 1000000 ~ 'a', 'x' * 1000000 ~ 'b'] * 50000) | sort | length }}",
    "{{ lipsum(n=1000) }}",
    "{{ cycler(1) }}{{ joiner() }}",
    GROW.replace("%s", "{% set ns.x = ns.x ~ ns.x %}"),
    GROW.replace("%s", "{% set ns.x = ns.x + ns.x %}"),
    GROW.replace("%s", "{% set ns.x = ns.x.replace('a', 'aa') %}"),
    GROW.replace("%s", "{% set ns.x = ns.x | urlencode | urlencode | replace('a', '%') %}"),
    GROW.replace("%s", "{% set ns.l = ns.l + ns.l %}"),
    GROW.replace("%s", "{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l == [ns.l] }}",
    GROW.replace("%s", "{% set ns.l = {'a': ns.l, 'b': ns.l} %}") + "{{ ns.l }}",
    GROW.replace("%s", "{% set ns.t = (ns.t, ns.t) %}") + "{{ {ns.t: 1} }}",
    GROW.replace("%s", "{% set ns.l = dict(a=ns.l, b=ns.l) %}") + "{{ ns.l | string }}",
    GROW.replace("%s", "{% set ns.l = [ns.l] | list + [ns.l] | list %}"),
    GROW.replace("%s", "{% set ns.l = ns.l + [('a' * 1000000) | upper] %}"),
    GROW.replace("%s", "{% set x = ('a' * 999999) < ('a' * 999998 ~ 'b') %}"),
    GROW.replace("%s", "{% if ('a' * 999999) in ['b' * 999999, 'a' * 999998 ~ 'b'] %}{% endif %}"),
    NESTED.replace("%s", "namespace(a=[s.x, s.x])") + "{{ [s.x] | string }}{{ s.x }}",
    NESTED.replace("%s", "{'a': s.x, 'b': s.x}.items()") + "{{ s.x | upper }}",
    NESTED.replace("%s", "dict(a=s.x, b=s.x).values()") + "{{ [s.x] | string }}",
    NESTED.replace("%s", "[s.x, s.x] | reverse | list") + "{{ s.x == [s.x] }}",
    NESTED.replace("%s", "(s.x, s.x) | batch(1) | list") + "{{ s.x }}",
    NESTED.replace("%s", "[[s.x, 1], [s.x, 2]] | groupby(1)") + "{{ s.x }}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
    "{{ ('<!--' * 200000) | striptags }}",
    "{{ ('a ' * 500000) | wordwrap(1) }}",
    "{{ range(9999) | map('string') | map('replace', '1', 'x' * 100000) | list | length }}",
    "{% for i in range(9999) %}{{ ('a b ' * 200000).split() | length }}{% endfor %}",
    "{% for i in range(9999) %}{{ ('é' * 1000000) | list | length }}{% endfor %}",
    "{{ " + "[" * 300 + "]" * 300 + " }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "+".join(["1"] * 20000) + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "{% for a in range(9) %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "- " * 3000 + "1 }}",
    "{{ range(9999) " + "| map('string') " * 200 + "| list | length }}" * 1,
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ x.__init__.__globals__ }}",
    "{{ ('a' | attr('__class__')) }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ self }}",
    "{{ range }}",
    "{{ namespace }}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{{ x.clear() }}",
    "{{ x.update({'a': 1}) }}",
]


@pytest.mark.parametrize("template", ATTACKS, ids=lambda template: template[:60])
def test_an_attack_ends_with_an_error_soon_and_without_much_memory(template: str, monkeypatch):
    # Traced, a rendering does within a fifth of its time a good part of what it may do.
    monkeypatch.setattr(metering, "MAX_SECONDS", 0.2)
    started = time.thread_time()
    try:
        variables(template)
    except RenderError:
        assert time.thread_time() - started < 5
        return
    tracemalloc.start()
    try:
        with pytest.raises(RenderError):
            text(template, x={"z": 1})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Tracing slows down severalfold; what is measured here is that no operation escapes the meter.
    assert time.thread_time() - started < 5
    assert peak < 200 * 2**20


@pytest.mark.parametrize("template", [template for template in ATTACKS if "f(n - 1)" in template])
def test_what_costs_nothing_but_time_ends_after_a_second(template: str):
    started = time.thread_time()
    with pytest.raises(RenderError, match=r"takes longer than 1 s\."):
        text(template)
    assert 0.9 < time.thread_time() - started < 5


def test_a_namespace_hides_what_it_holds():
    """Its values may be nested beyond what was paid for: 2**60 of them here."""
    nested = NESTED.replace("%s", "namespace(a=s.x, b=s.x)")
    assert text(nested + "{{ [s.x] }} {{ s.x | upper }}") == '["<namespace>"] <NAMESPACE>'


def test_an_output_of_one_mebibyte_is_allowed_and_no_more():
    assert len(text("{{ x }}", x="a" * MAX_OUTPUT_BYTES)) == MAX_OUTPUT_BYTES
    with pytest.raises(RenderError, match="larger"):
        text("{{ x }}!", x="a" * MAX_OUTPUT_BYTES)
    with pytest.raises(RenderError, match="larger"):
        text("{{ x }}", x="é" * MAX_OUTPUT_BYTES)


def test_the_messages_of_a_chat_share_the_bound():
    half = [{"role": "user", "content": "{{ x }}"}]
    render(half, "chat", {"x": "a" * 600_000})
    with pytest.raises(RenderError, match="larger"):
        render(half * 2, "chat", {"x": "a" * 600_000})


def test_a_plain_template_is_bounded_too():
    with pytest.raises(RenderError, match="larger"):
        text("a" * (MAX_OUTPUT_BYTES + 1))


def test_a_long_document_passes_through_filters():
    document = "words and more " * 60_000
    assert (
        text("{{ d | trim | upper | lower | replace('more', 'less') }}", d=document).count("less") == 60_000
    )


def test_renderings_in_threads_do_not_share_their_bounds():
    outcomes: list[int] = []

    def run() -> None:
        outcomes.extend(len(text("{{ x | upper }}", x="a" * 500_000)) for _ in range(40))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [500_000] * 160


def test_compiled_templates_are_bounded():
    compiled.clear()
    for number in range(100, 112):
        text("{{ x }}" + f"{number}" * 250_000, x=1)
    assert 0 < len(compiled._held) < 12


SOURCES = st.text(st.sampled_from("{}%# \n'\"()[].,|~*+-/<=>!abxf0123_:"), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    SOURCES,
    st.dictionaries(st.sampled_from("abx"), st.recursive(st.text() | st.integers() | st.none(), st.lists)),
)
def test_any_source_gives_text_or_a_render_error(source: str, vars: dict[str, object]):
    try:
        variables(source)
        assert isinstance(text(source, **vars), str)
    except RenderError as error:
        assert str(error).endswith(".")


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_passes_unchanged(value: str):
    assert text("<{{ value }}>", value=value) == f"<{value}>"


EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "99999", "'ab'", "[1, 'x']", "x", "(1, 2)", "{'a': 'b'}", "2.5", "none"]),
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["*", "+", "-", "/", "//", "%", "**", "~", "==", "<", "in"]), inner
        ).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(
            inner,
            st.sampled_from(["list", "string", "join", "sort", "tojson", "length", "upper", "sum", "round"]),
        ).map(lambda parts: f"({parts[0]} | {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} | join({parts[1]}))"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} | replace({parts[1]}, {parts[2]}))"),
        inner.map(lambda part: f"[{part}, {part}]"),
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None)
@given(EXPRESSIONS)
def test_no_expression_takes_long(expression: str):
    started = time.thread_time()
    with contextlib.suppress(RenderError):
        text("{{ " + expression + " }}", x="y" * 5_000)
    assert time.thread_time() - started < 5


def test_only_the_work_of_its_own_thread_is_timed(monkeypatch):
    monkeypatch.setattr(metering, "MAX_SECONDS", 0.02)
    with metering.metered() as meter:
        time.sleep(0.05)  # a machine that is busy with something else
        meter.spend(1)
        with pytest.raises(metering.BoundExceededError, match="takes longer"):
            while True:
                meter.spend(0)
