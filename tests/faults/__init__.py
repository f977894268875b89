"""A seeded campaign that injects faults into small runs and classifies what happens.

``python -m tests.faults --count 1000 --seed 7 --out DIR`` runs it. See ``docs/explanation/reliability.md``.
"""
