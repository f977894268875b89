"""Build the SFT row of each quadruple from its recorded traces and gold verdicts.

The setting ``variant`` determines what a row contains: a random trace (T), only the gold verdicts (V), or the trace that
agrees best with the gold verdicts (T+V). In the variant holistic, a random trace is
used as in T, but each trace consists of two ratings of the whole image.
"""

from __future__ import annotations

from editr1.config.curate import CurateConfig
from editr1.curation.records import RecordFile
from editr1.curation.select import (
    agreement,
    best_trace,
    canonical_trace,
    holistic_verdict,
    random_trace,
    shuffled,
    verdict_trace,
)
from editr1.curation.think import Trace, parse_member_trace, quadruple_id, recorded_traces
from editr1.curation.verify import recorded_gold
from editr1.data.types import Principle, Quadruple, SftRow, Unparsed, Verdict
from editr1.seeding import curation_rng


class RowBuilder:
    """Build SFT rows, and count traces and rows for the metrics."""

    def __init__(self, config: CurateConfig, traces: RecordFile, gold: RecordFile) -> None:
        self._config, self._traces, self._gold = config, traces, gold
        self._num_traces = self._num_parsed = self._num_rows = 0
        self._agreement = 0.0

    def build(self, quadruple: Quadruple) -> SftRow | str:
        """Return the row of a quadruple, or the reason why there is no row. The case must have principles."""
        made = self._verdict_row(quadruple) if self._config.variant == "V" else self._trace_row(quadruple)
        if isinstance(made, SftRow):
            self._num_rows += 1
            self._agreement += made.agreement or 0.0
        return made

    def metrics(self) -> dict[str, float]:
        """Return the number of traces, the fraction of them that could be parsed, and the mean ``agreement`` of the rows."""
        found: dict[str, float] = {}
        if self._num_traces:
            found |= {"traces": float(self._num_traces), "trace_parse_rate": self._num_parsed / self._num_traces}
        if self._num_rows and self._config.variant in ("V", "T+V"):
            found["agreement"] = self._agreement / self._num_rows
        return found

    def _verdict_row(self, quadruple: Quadruple) -> SftRow | str:
        gold = recorded_gold(self._gold, quadruple_id(quadruple))
        if gold is None:
            return "no gold"
        trace = verdict_trace(quadruple.case.principles, gold)
        return SftRow(quadruple=quadruple, trace=trace, agreement=1.0, member=self._config.verifier.model)

    def _trace_row(self, quadruple: Quadruple) -> SftRow | str:
        key, principles = quadruple_id(quadruple), quadruple.case.principles
        # The traces are shuffled, because the record is sorted by pool member, and the first of equally good traces
        # is selected.
        traces = shuffled(recorded_traces(self._traces, key), curation_rng(self._config.seed, "shuffle", key))
        verdicts = self._parse(traces, principles)
        gold = recorded_gold(self._gold, key) if self._config.variant == "T+V" else None
        if self._config.variant != "T+V":
            index = random_trace(verdicts, curation_rng(self._config.seed, "select", key))
        else:
            index = None if gold is None else best_trace(verdicts, gold)
        if index is None:
            return "no gold" if any(isinstance(verdict, Verdict) for verdict in verdicts) else "no trace parsed"
        verdict = verdicts[index]
        assert isinstance(verdict, Verdict)
        try:
            trace = canonical_trace(verdict, principles)
        except ValueError:
            return "trace without canonical spelling"
        agreed = None if gold is None else agreement(verdict.scores, gold)
        return SftRow(quadruple=quadruple, trace=trace, agreement=agreed, member=traces[index][0])

    def _parse(self, traces: list[Trace], principles: tuple[Principle, ...]) -> list[Verdict | Unparsed]:
        if self._config.variant == "holistic":
            verdicts = [holistic_verdict(text, self._config.holistic) for _, text in traces]
        else:
            verdicts = [parse_member_trace(trace, principles) for trace in traces]
        self._num_traces += len(verdicts)
        self._num_parsed += sum(isinstance(verdict, Verdict) for verdict in verdicts)
        return verdicts
