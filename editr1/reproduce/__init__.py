"""Reproduction of the paper's claims on the shapes dataset: experiments, their comparisons, and a report of the outcomes."""
