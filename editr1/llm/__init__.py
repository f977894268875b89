"""The client of OpenAI-compatible chat servers, shared by curation, evaluation and the ``openai`` reward engine."""
