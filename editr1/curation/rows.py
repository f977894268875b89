"""From the answers of a quadruple to its SFT row, by variant."""

from __future__ import annotations

from editr1.config.curate import CurateConfig
from editr1.curation.parts import PartFile
from editr1.curation.select import agreement, best_trace, canonical, holistic_verdict, random_trace, verdict_trace
from editr1.curation.think import parse, quadruple_id, traces_in
from editr1.curation.verify import gold_in
from editr1.data.types import Quadruple, SftRow, Verdict
from editr1.seeding import curation_rng


class Chooser:
    """Makes the row of each quadruple and keeps the figures of what it saw."""

    def __init__(self, config: CurateConfig, thought: PartFile, verified: PartFile) -> None:
        self._config, self._thought, self._verified = config, thought, verified
        self._traces = self._parsed = self._rows = 0
        self._agreement = 0.0

    def row(self, quadruple: Quadruple) -> SftRow | str:
        """The row of a quadruple whose case has its principles, or the reason why there is none."""
        made = self._verdict_row(quadruple) if self._config.variant == "V" else self._trace_row(quadruple)
        if isinstance(made, SftRow):
            self._rows += 1
            self._agreement += made.agreement or 0.0
        return made

    def figures(self) -> dict[str, float]:
        """Mean agreement of the rows with gold, traces seen, share of them that parsed."""
        found: dict[str, float] = {}
        if self._traces:
            found |= {"traces": float(self._traces), "trace_parse_rate": self._parsed / self._traces}
        if self._rows and self._config.variant in ("V", "T+V"):
            found["agreement"] = self._agreement / self._rows
        return found

    def _verdict_row(self, quadruple: Quadruple) -> SftRow | str:
        gold = gold_in(self._verified, quadruple_id(quadruple))
        if gold is None:
            return "no gold"
        trace = verdict_trace(quadruple.case.principles, gold)
        return SftRow(quadruple=quadruple, trace=trace, agreement=1.0, member=self._config.verifier.model)

    def _trace_row(self, quadruple: Quadruple) -> SftRow | str:
        key, principles = quadruple_id(quadruple), quadruple.case.principles
        traces = traces_in(self._thought, key)
        if self._config.variant == "holistic":
            verdicts = [holistic_verdict(text, self._config.holistic) for _, text in traces]
        else:
            verdicts = [parse(trace, principles) for trace in traces]
        self._traces += len(verdicts)
        self._parsed += sum(isinstance(verdict, Verdict) for verdict in verdicts)
        share: float | None = None
        if self._config.variant == "T+V":
            gold = gold_in(self._verified, key)
            index = None if gold is None else best_trace(verdicts, gold)
        else:
            index = random_trace(verdicts, curation_rng(self._config.seed, "select", key))
        if index is None:
            return "no trace parsed" if not any(isinstance(verdict, Verdict) for verdict in verdicts) else "no gold"
        verdict = verdicts[index]
        assert isinstance(verdict, Verdict)
        if self._config.variant == "T+V":
            assert gold is not None
            share = agreement(verdict.scores, gold)
        try:
            trace = canonical(verdict, principles)
        except ValueError:
            return "trace without canonical spelling"
        return SftRow(quadruple=quadruple, trace=trace, agreement=share, member=traces[index][0])
