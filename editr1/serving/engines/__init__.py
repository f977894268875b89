"""Inference engines that generate the traces of a verifier, behind one protocol."""
