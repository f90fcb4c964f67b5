"""The language model that runs on this machine."""

from prompts.llm.providers.base import ProviderError, Request
from prompts.llm.providers.openai import OpenAIProvider


class LocalProvider(OpenAIProvider):
    """OpenAI's protocol at the local server, which is started on first use."""

    async def base_url(self, request: Request) -> str:
        # Only who uses the local model loads what starts it.
        from prompts.llm.providers import local_server

        try:
            return await local_server.base_url()
        except local_server.LocalModelError as error:
            raise ProviderError("unavailable", str(error)) from error
