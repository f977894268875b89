"""A client of OpenAI-compatible chat servers, which is used by curation, evaluation and the ``openai`` reward engine."""
