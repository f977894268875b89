"""Engines that generate the verifier's traces, behind one protocol."""
