"""What OpenAI's clients send. Fields we do not know are ignored, as OpenAI's own servers may add some."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from autoforge.errors import AppError, InvalidInput, validation_sentence
from prompts.call_schemas import MAX_MESSAGES
from prompts.llm.providers.base import CacheUse, merge_params

MAX_FALLBACKS = 8
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


class CacheWish(msgspec.Struct, rename="kebab"):
    """The extension `cache` of the body, as LiteLLM has it."""

    no_cache: bool = False
    no_store: bool = False


class ChatRequest(Params, kw_only=True):
    """A chat completion. `vars`, `endpoint`, `fallbacks` and `cache` are ours."""

    model: str
    messages: Annotated[list[Object], Meta(max_length=MAX_MESSAGES)] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Object | None = None
    vars: Object | None = None
    endpoint: str | None = None
    fallbacks: Annotated[list[str], Meta(max_length=MAX_FALLBACKS)] = []
    cache: CacheWish | None = None

    @property
    def params(self) -> dict[str, Any]:
        return merge_params({name: getattr(self, name) for name in Params.__struct_fields__})

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def cache_use(self, asked: CacheUse) -> CacheUse:
        """What is asked of the cache by the body and, as `asked`, by the headers: the stricter of both."""
        if asked == "no-store" or (self.cache and self.cache.no_store):
            return "no-store"
        return "no-cache" if asked == "no-cache" or (self.cache and self.cache.no_cache) else "use"


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
