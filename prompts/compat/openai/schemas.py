"""What OpenAI's clients send. Fields we do not know are ignored, as OpenAI's own servers may add some."""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from autoforge.errors import AppError, InvalidInput, validation_sentence
from prompts.call_schemas import MAX_MESSAGES, cache_use, max_age_s
from prompts.llm.providers.base import CacheTerms, CacheUse, merge_params

MAX_FALLBACKS = 8
MAX_ATTEMPTS = 10
MAX_INPUTS = 2_048  # texts in one request for embeddings, as OpenAI has it

Number = int | float | None
Object = dict[str, Any]


class Params(msgspec.Struct, kw_only=True):
    """What goes on to the model: OpenAI's parameters, and some that compatible servers take."""

    temperature: Number = None
    top_p: Number = None
    top_k: Number = None
    min_p: Number = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    repetition_penalty: Number = None
    logit_bias: dict[str, int | float] | None = None
    seed: int | None = None
    user: str | None = None
    response_format: Object | None = None
    grammar: str | None = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Object] | None = None
    function_call: str | Object | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    prediction: Object | None = None
    thinking: Object | None = None
    chat_template_kwargs: Object | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]


class CacheWish(msgspec.Struct, rename="kebab", frozen=True):
    """The extension `cache` of the body, as LiteLLM has it."""

    no_cache: bool = False
    no_store: bool = False
    s_maxage: Seconds | None = None
    ttl: Seconds | None = None
    namespace: Annotated[str, Meta(max_length=200)] = ""

    def use(self, asked: CacheUse) -> CacheUse:
        """The stricter of what this and the headers ask."""
        if asked == "no-store" or self.no_store:
            return "no-store"
        return "no-cache" if asked == "no-cache" or self.no_cache else "use"

    def terms(self, max_age_s: float | None) -> CacheTerms:
        """The same of a stored answer's age."""
        ages = [age for age in (self.s_maxage, max_age_s) if age is not None]
        return CacheTerms(min(ages, default=None), self.ttl, self.namespace)


class Manner(NamedTuple):
    """How a question is put, beside what is asked."""

    cache: CacheUse
    terms: CacheTerms
    max_attempts: int | None


class ChatRequest(Params, kw_only=True):
    """A chat completion. `vars` and what follows it are ours."""

    model: str
    messages: Annotated[list[Object], Meta(max_length=MAX_MESSAGES)] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Object | None = None
    vars: Object | None = None
    endpoint: str | None = None
    fallbacks: Annotated[list[str], Meta(max_length=MAX_FALLBACKS)] = []
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] | None = None
    timeout_s: Seconds | None = None
    cache: CacheWish | None = None

    @property
    def params(self) -> dict[str, Any]:
        sent = {name: getattr(self, name) for name in Params.__struct_fields__}
        return merge_params(sent, {"timeout_s": self.timeout_s})

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def manner(self, cache_control: str) -> Manner:
        """By the body and the request's Cache-Control together."""
        wish = self.cache or CacheWish()
        terms = wish.terms(max_age_s(cache_control))
        return Manner(wish.use(cache_use(cache_control)), terms, self.max_attempts)


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """Texts to embed. Token numbers are refused later, with a sentence that helps."""

    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_chat = msgspec.json.Decoder(ChatRequest)
_embeddings = msgspec.json.Decoder(EmbeddingsRequest)


def read_chat(body: bytes) -> ChatRequest:
    """Raises InvalidInput naming the field in `param`, AppError for what is no JSON."""
    request: ChatRequest = _read(_chat, body)
    for position, message in enumerate(request.messages):
        _check_message(message, f"messages[{position}]")
    if not request.messages and not request.model.startswith("prompt:"):
        raise InvalidInput("messages: at least one message is needed.", param="messages")
    return request


def read_embeddings(body: bytes) -> EmbeddingsRequest:
    """Raises as `read_chat`."""
    return _read(_embeddings, body)


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        sentence = validation_sentence(str(error))
        path, colon, _ = sentence.partition(": ")
        raise InvalidInput(sentence, param=path if colon else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AppError(f"The request body is not JSON: {error}.") from error


_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _check_message(message: Object, place: str) -> None:
    if message.get("role") not in _ROLES:
        raise InvalidInput(f"{place}.role must be one of {', '.join(_ROLES)}.", param=f"{place}.role")
    match message.get("content"):
        case None | str():
            return
        case list(parts) if all(isinstance(part, dict) for part in parts):
            return
    sentence = f"{place}.content must be a text or a list of parts."
    raise InvalidInput(sentence, param=f"{place}.content")
