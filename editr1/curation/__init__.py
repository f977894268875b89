"""Create the training data for the verifier's cold start (SFT) by labelling edits with VLMs (arXiv 2604.27505, section 3.1).

The VLMs are called through OpenAI-compatible endpoints.
"""
