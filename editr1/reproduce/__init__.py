"""Reproduction of the paper's claims on the shapes dataset: experiments, comparisons between them, and a report of the outcomes."""
