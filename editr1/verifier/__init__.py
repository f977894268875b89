"""The verifier, a reasoning reward model: its prompt, its trace format, and its training with SFT and GCPO."""
