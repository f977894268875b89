"""Cold-start data of the verifier (arXiv 2604.27505, section 3.1) over any OpenAI-compatible endpoint with pictures."""
