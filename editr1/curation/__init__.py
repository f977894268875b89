"""Curation of the verifier's cold-start data (arXiv 2604.27505, section 3.1) with OpenAI-compatible VLM endpoints."""
