"""Reinforcement learning of image editors: SDE kernels, policies over diffusers' pipelines, rollout and GRPO."""
