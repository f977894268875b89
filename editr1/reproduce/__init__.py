"""Reproduction of the paper's claims on the shapes dataset: experiments, comparisons, and a report of which claims hold."""
