"""The reasoning reward model: prompt, trace, SFT, GCPO."""
