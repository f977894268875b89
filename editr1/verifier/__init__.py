"""The verifier, a vision-language model that scores image edits: its prompt, its output format and its training.

The verifier is a reasoning reward model. Its output, called a trace, is a reasoning text with a score. It is first trained
with supervised fine-tuning (SFT), then with reinforcement learning on preference pairs (GCPO).
"""
