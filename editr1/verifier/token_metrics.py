"""Weight the metrics of TRL's trainers by tokens, so that they do not depend on how samples are divided into micro-batches."""

from __future__ import annotations

from typing import ClassVar


class TokenMetricsMixin:
    """Mixin for TRL trainers that averages metrics over all tokens since the last log entry.

    TRL appends the mean over the tokens of one micro-batch (over all processes) to ``self._metrics``, and logs the
    mean of these means. With traces of unequal length, the result depends on the micro-batch size. With this mixin,
    each micro-batch is weighted by its number of tokens, so the result is the mean over all tokens.
    """

    token_metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics that are averaged over tokens."""
    maximum_metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics whose largest value is logged."""

    def add_tokens(self, tokens: float) -> None:
        """Record the number of tokens, over all processes, of the micro-batch whose metrics were just appended."""
        self._weights().append(tokens)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log ``logs`` and the metrics since the last log entry. See :class:`transformers.Trainer`."""
        metrics: dict[str, list[float]] = self._metrics["train"]  # type: ignore[attr-defined]
        weights = self._weights()
        for name in self.token_metrics:
            if metrics.get(name):
                total = sum(value * weight for value, weight in zip(metrics[name], weights, strict=True))
                metrics[name] = [total / max(sum(weights), 1.0)]
        for name in self.maximum_metrics:
            if metrics.get(name):
                metrics[name] = [max(metrics[name])]
        weights.clear()
        super().log(logs, start_time)  # type: ignore[misc]

    def _weights(self) -> list[float]:
        weights: list[float] = self.__dict__.setdefault("_token_weights", [])
        return weights
