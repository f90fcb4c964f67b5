"""OpenAI's API at `/v1/`: models, chat completions and embeddings."""
