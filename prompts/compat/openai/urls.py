"""The addresses of OpenAI's API that we answer."""

from django.urls import path, re_path

from prompts.compat.openai.chat import complete_chat
from prompts.compat.openai.embeddings import embed_texts
from prompts.compat.openai.models import list_models, refuse_path, show_model
from prompts.compat.openai.surface import answers

urlpatterns = [
    path("models", answers(GET=list_models), name="openai-models"),
    path("models/<path:model>", answers(GET=show_model), name="openai-model"),
    path("chat/completions", answers(POST=complete_chat), name="openai-chat"),
    path("embeddings", answers(POST=embed_texts), name="openai-embeddings"),
    re_path("", answers(GET=refuse_path, POST=refuse_path), name="openai-unknown"),
]
