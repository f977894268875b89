"""Names of all spans and metrics of the package; the metrics of the operator are in its metrics.py."""

from __future__ import annotations

from enum import StrEnum


class Span(StrEnum):
    """Span names."""

    RUN = "editr1.run"
    ATTEMPT = "editr1.attempt"
    POD = "editr1.pod"
    STAGE = "editr1.stage"
    LOAD = "editr1.load"
    COMMIT = "editr1.commit"
    CHECKPOINT = "editr1.checkpoint"
    PHASE = "editr1.phase"
    STEP = "editr1.step"
    SAMPLE = "editr1.step.sample"
    REWARD = "editr1.step.reward"
    OPTIMISE = "editr1.step.optimise"
    REWARD_REQUEST = "editr1.reward.request"
    REWARD_SERVE = "editr1.reward.serve"
    REWARD_QUEUE = "editr1.reward.queue"
    REWARD_BATCH = "editr1.reward.batch"
    REWARD_GENERATE = "editr1.reward.generate"


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
    TOTAL = "editr1_stage_total"
    METRIC = "editr1_stage_metric"
