"""Inference engines that generate a verifier's traces. All engines implement the same protocol."""
