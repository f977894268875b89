"""Reinforcement learning of image editors with Flow-GRPO: editor policies, sampling, scoring and policy updates."""
