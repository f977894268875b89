"""Names of all spans and metrics of the package; the metrics of the operator are in its metrics.py."""

from __future__ import annotations

from enum import StrEnum


class Span(StrEnum):
    """Span names."""

    RUN = "editr1.run"
    """A whole run, from the command or the operator that started it to its end."""
    ATTEMPT = "editr1.attempt"
    """One attempt of a stage, as the launcher sees it."""
    POD = "editr1.pod"
    """A pod of an attempt on a cluster."""
    STAGE = "editr1.stage"
    """A stage process, from its settings to its result."""
    LOAD = "editr1.load"
    """Fetching or loading an input."""
    COMMIT = "editr1.commit"
    """Committing an output to the artifact store."""
    CHECKPOINT = "editr1.checkpoint"
    """Writing and committing a checkpoint."""
    PHASE = "editr1.phase"
    """A phase of a stage, such as a step of curation."""
    STEP = "editr1.step"
    """An optimizer step or an iteration of RL training."""
    SAMPLE = "editr1.step.sample"
    """Sampling within a step."""
    REWARD = "editr1.step.reward"
    """Waiting for rewards within a step."""
    OPTIMISE = "editr1.step.optimise"
    """The weight update within a step."""
    REWARD_REQUEST = "editr1.reward.request"
    """A request of the reward client, including its retries."""
    REWARD_SERVE = "editr1.reward.serve"
    """A request as handled by the reward server."""
    REWARD_QUEUE = "editr1.reward.queue"
    """The time that items of a request wait for a batch."""
    REWARD_BATCH = "editr1.reward.batch"
    """A batch on the reward server."""
    REWARD_GENERATE = "editr1.reward.generate"
    """Generation of the traces of a batch."""


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
    """Completed steps of the current phase."""
    TOTAL = "editr1_stage_total"
    """Total steps of the current phase."""
    METRIC = "editr1_stage_metric"
    """Metrics of the latest step, by name."""
