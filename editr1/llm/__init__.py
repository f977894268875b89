"""A client for OpenAI-compatible chat servers. Curation, evaluation and the ``openai`` reward engine use it."""
