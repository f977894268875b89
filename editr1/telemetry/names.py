"""Names of all spans and metrics of the package. The operator defines its own metrics in ``editr1_operator/metrics.py``."""

from __future__ import annotations

from enum import StrEnum


class Span(StrEnum):
    """Span names."""

    RUN = "editr1.run"
    """A run, from its start by a command or the operator to its end."""
    ATTEMPT = "editr1.attempt"
    """One attempt to run a stage, as measured by its launcher."""
    POD = "editr1.pod"
    """One pod of an attempt on a cluster."""
    STAGE = "editr1.stage"
    """A stage process, from reading its settings to committing its result."""
    LOAD = "editr1.load"
    """Fetching or loading an input of a stage."""
    COMMIT = "editr1.commit"
    """Committing an output to the artifact store."""
    CHECKPOINT = "editr1.checkpoint"
    """Writing and committing a checkpoint."""
    PHASE = "editr1.phase"
    """A phase of a stage, such as the generation of edit candidates in a curate stage."""
    STEP = "editr1.step"
    """One training step of the verifier, or one training iteration of the editor."""
    SAMPLE = "editr1.step.sample"
    """Sampling of traces or images within a training step."""
    REWARD = "editr1.step.reward"
    """Computing rewards, or waiting for them, within a training step."""
    OPTIMISE = "editr1.step.optimise"
    """The weight update within a training step."""
    REWARD_REQUEST = "editr1.reward.request"
    """One request of the reward client, including the retries of the request."""
    REWARD_SERVE = "editr1.reward.serve"
    """Handling of one request by the reward server."""
    REWARD_QUEUE = "editr1.reward.queue"
    """Time that the items of a request wait in the reward server's queue."""
    REWARD_BATCH = "editr1.reward.batch"
    """Processing of one batch on the reward server."""
    REWARD_GENERATE = "editr1.reward.generate"
    """Generation of the verifier's outputs for a batch."""


class Metric(StrEnum):
    """Prometheus metric names of the reward server."""

    IN_FLIGHT = "editr1_reward_in_flight"
    REQUESTS = "editr1_reward_requests_total"
    ITEMS = "editr1_reward_items_total"
    BATCH_SIZE = "editr1_reward_batch_size"
    QUEUE_SECONDS = "editr1_reward_queue_seconds"
    GENERATE_SECONDS = "editr1_reward_generate_seconds"
    TOKENS = "editr1_reward_tokens_total"


class StageMetric(StrEnum):
    """OpenTelemetry metric names of a running stage."""

    DONE = "editr1_stage_done"
    """Number of completed steps in the current phase."""
    TOTAL = "editr1_stage_total"
    """Total number of steps in the current phase."""
    METRIC = "editr1_stage_metric"
    """Metrics of the latest step, by name."""
