"""Typed settings of every stage."""
