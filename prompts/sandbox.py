"""The Jinja environment of prompts: sandboxed, strict, and metered."""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from prompts import bounded
from prompts.metering import OBJECT_BYTES, meter

MAX_TOKENS = 10_000  # of a template: they cost time to compile
_OPERATORS = frozenset({"+", "-", "*", "/", "//", "%", "**"})
_REFUSED = (
    nodes.Block,
    nodes.Extends,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.ScopedEvalContextModifier,
)


class PromptNamespace(Namespace):
    """A namespace that prints as a name: its values may be nested beyond what has been paid for."""

    def __repr__(self) -> str:
        return "<namespace>"


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """Runs templates that anybody may have written. Renderings need `metering.metered`."""

    intercepted_binops = _OPERATORS

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=_printed,
            # Folding constants would do the work while compiling.
            optimized=False,
            cache_size=0,
            extensions=[TokenLimit],
        )
        self.globals = {"range": bounded.bounded_range, "dict": dict, "namespace": PromptNamespace}
        self.filters = {
            **bounded.FILTER_TABLE,
            "_concatenated": bounded.concatenated,
            "_loop": bounded.loop,
            "_weighed": _weighed,
        }
        self.tests = dict(bounded.TEST_TABLE)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return bounded.operate(operator, self.binop_table[operator], left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if callable(value) and not isinstance(obj, LoopContext | Macro | Namespace):
            return attr in bounded.METHODS.get(type(obj), ())
        return super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A dictionary's own key comes before a method of the same name."""
        meter().spend(OBJECT_BYTES)
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        meter().weigh(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` is no method of templates: `is_safe_attribute` refuses it."""
        return None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        running = meter()
        for operand in (*args, *kwargs.values()):
            running.weigh(operand)
        function = bounded.bounded_method(__obj)
        return running.weigh(super().call(__context, function, *args, **kwargs))

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        """Jinja's hook between the parsed template and its code."""
        return super()._generate(_Metering().visit(source), name, filename, defer_init)


class TokenLimit(Extension):
    """Refuses templates that would take long to compile."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for position, token in enumerate(stream):
            if position > MAX_TOKENS:
                raise TemplateSyntaxError(f"over {MAX_TOKENS} words and signs of code", token.lineno)
            yield token


class _Metering(NodeTransformer):
    """Puts a payment before every piece of work that Jinja lets nobody intercept."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _REFUSED):
            kind = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{kind!r} is not available in prompts", node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not available in prompts", node.lineno)
        static = sum(len(text.data) for part in node.body for text in part.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filter(node.iter, "_loop", nodes.Const(static))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_concatenated")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_weighed")
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_weighed")
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "_weighed")

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "_weighed") if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "_weighed") if isinstance(node.arg, nodes.Slice) else node


def _filter(node: Any, name: str, *args: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _weighed(value: Any) -> Any:
    return meter().weigh(value)


@pass_context
def _printed(context: Context, value: Any) -> str:
    """What an expression prints. Taking the context keeps Jinja from calling this while compiling."""
    return bounded.to_text(meter().weigh(value))
