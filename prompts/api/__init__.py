"""REST controllers of prompts, models and completions."""
