"""What the operator counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RUNS = Gauge("editr1_operator_runs", "Runs by state.", ["state"])
RECONCILE_SECONDS = Histogram(
    "editr1_operator_reconcile_seconds",
    "Time of one look at a run.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REACTION_SECONDS = Histogram(
    "editr1_operator_reaction_seconds",
    "From a change in the cluster to the end of the look at its run.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RETRIES = Counter("editr1_operator_retries", "Attempts that follow one that ended badly.", ["kind"])
ERRORS = Counter("editr1_operator_errors", "Looks at a run that ended in an error.", ["cause"])
API_REQUESTS = Counter(
    "editr1_operator_api_requests", "Requests to the API server, watches apart.", ["verb", "resource"]
)
NOTICES = Counter("editr1_operator_notices", "Webhook notices by what became of them.", ["outcome"])
