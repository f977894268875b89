"""Prometheus metrics of the operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RUNS = Gauge("editr1_operator_runs", "Number of runs by state.", ["state"])
RECONCILE_SECONDS = Histogram(
    "editr1_operator_reconcile_seconds",
    "Duration of one reconciliation of a run.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REACTION_SECONDS = Histogram(
    "editr1_operator_reaction_seconds",
    "Time from a change in the cluster to the end of the reconciliation of its run.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RETRIES = Counter("editr1_operator_retries", "Failed attempts and lost nodes.", ["kind"])
ERRORS = Counter("editr1_operator_errors", "Reconciliations that ended in an error, by exception type.", ["cause"])
API_REQUESTS = Counter(
    "editr1_operator_api_requests", "Requests to the API server, except watches.", ["verb", "resource"]
)
NOTICES = Counter("editr1_operator_notices", "Webhook notifications by outcome: sent, failed or dropped.", ["outcome"])
