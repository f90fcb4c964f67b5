"""Langfuse's public API at `/api/public/`: what its SDKs ask of prompts."""
