"""Gradients of SFT and GCPO: those that the trainers use, and those that follow from the formulas.

The reference reads one trace at a time, without padding, and uses nothing of the trainers: neither their losses, rewards
and advantages nor their division of a batch. For LoRA, it uses nothing of peft: see :mod:`tests.unit.verifier.adapters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from editr1.config.gcpo import GcpoConfig
from editr1.config.sft import SftConfig
from editr1.data.images import decode_image
from editr1.data.tables import read_table
from editr1.data.types import PreferencePair, SftRow
from editr1.telemetry import TrainHooks
from editr1.verifier.chat import build_messages
from editr1.verifier.gcpo import GcpoTrainer, train_gcpo
from editr1.verifier.model import load_processor, load_template
from editr1.verifier.sft import _SftTrainer, train_sft
from tests.unit.verifier.adapters import Gradient, adapter_gradient, fill_adapters, merged_weights

LARGEST_DIFFERENCE = {"fp32": 1e-5, "bf16-mixed": 0.03}
"""Largest relative difference that rounding explains, by precision. A wrong normalisation differs by 5 % and more."""


@dataclass(frozen=True)
class Step:
    """Weights before an optimizer step, and the gradient that the step uses, by parameter name."""

    weights: Gradient
    gradient: Gradient


@dataclass(frozen=True)
class Written:
    """A trace that the policy is said to have sampled. A trace that is not ``ended`` was cut off."""

    text: str
    ended: bool = True


Traces = Sequence[tuple[Sequence[Written], Sequence[Written]]]
"""For each pair, the traces of the winner and the traces of the loser."""


def sft_steps(config: SftConfig, model: Path, rows: Path, out: Path, hooks: TrainHooks | None = None) -> list[Step]:
    """Train with SFT and return the optimizer steps of this process."""
    with _recorded_steps(_SftTrainer) as steps:
        train_sft(config, model=model, rows=rows, output_dir=out, hooks=hooks or TrainHooks())
    return steps


def gcpo_steps(
    config: GcpoConfig, model: Path, pairs: Path, out: Path, traces: Traces, hooks: TrainHooks | None = None
) -> list[Step]:
    """Train with GCPO on given traces instead of sampled ones, and return the optimizer steps of this process."""
    rows: list[int] = []
    score = GcpoTrainer._generate_and_score_completions

    def remember_rows(self: Any, inputs: Any) -> Any:
        rows[:] = [item["row"] for item in inputs]
        return score(self, inputs)

    def given_traces(self: Any, prompt_ids: Any, *_: Any) -> tuple[list[list[int]], None]:
        tokens = []
        for place, row in enumerate(rows):
            trace = traces[row // 2][row % 2][place % config.num_traces]
            tokens.append(_tokens(self._tokenizer, trace))
        assert len(tokens) == len(prompt_ids)
        return tokens, None

    with (
        _recorded_steps(GcpoTrainer) as steps,
        patch.object(GcpoTrainer, "_generate_and_score_completions", remember_rows),
        patch.object(GcpoTrainer, "_generate_single_turn", given_traces),
    ):
        train_gcpo(config, model=model, pairs=pairs, output_dir=out, hooks=hooks or TrainHooks())
    return steps


def sft_reference(config: SftConfig, model: Path, rows: Path, weights: Gradient) -> Gradient:
    """Return the gradient of the mean cross entropy over all trained tokens of all ``rows`` at ``weights``."""
    reader = _Reader(model, config.precision, _scale(config))
    network = reader.network(weights)
    sums, count = [], 0
    for row in read_table(rows, SftRow):
        case = row.quadruple.case
        images = [decode_image(case.source.data), decode_image(row.quadruple.candidate.image.data)]
        prompt = reader.prompt(case.instruction, case.principles)
        answer = reader.tokenizer(f"{row.trace}<|im_end|>\n", add_special_tokens=False)["input_ids"]
        values = reader.log_probabilities(network, prompt, images, answer, whole=not config.mask_prompt)
        count += len(values)
        sums.append(-values.sum())
    (torch.stack(sums).sum() / count).backward()
    return reader.gradient(network, weights)


def gcpo_reference(
    config: GcpoConfig, model: Path, pairs: Path, traces: Traces, sampled: Gradient, weights: Gradient
) -> Gradient:
    """Return the gradient of the loss of GCPO (arXiv 2604.27505, section 3.2) at ``weights``.

    For each pair, the loss is -1/(2N) times the sum over its 2N traces of the mean over tokens of
    min(rho A, clip(rho) A) - beta rho (q - log(q) - 1). Here rho is the ratio of a token's probability to that of the policy
    that sampled the traces, whose weights are ``sampled``, and q is the ratio of its probability under the reference of the
    KL term, which is ``model`` without adapters, to that of the policy. The loss of a rollout is the mean over its pairs,
    also over those without a signal.
    """
    reader = _Reader(model, config.precision, _scale(config))
    frozen, old, network = reader.network(), reader.network(sampled), reader.network(weights)
    loss = torch.zeros(())
    for pair, (winner, loser) in zip(read_table(pairs, PreferencePair), traces, strict=True):
        prompt = reader.prompt(pair.case.instruction, pair.case.principles)
        won, lost = _rewards(winner, loser, config.tie_credit)
        for side, written, rewards in ((pair.winner, winner, won), (pair.loser, loser, lost)):
            images = [decode_image(pair.case.source.data), decode_image(side.image.data)]
            mean = sum(rewards) / len(rewards)
            for trace, reward in zip(written, rewards, strict=True):
                answer = _tokens(reader.tokenizer, trace)
                with torch.no_grad():
                    before, first = (
                        reader.log_probabilities(policy, prompt, images, answer, config.temperature)
                        for policy in (old, frozen)
                    )
                now = reader.log_probabilities(network, prompt, images, answer, config.temperature)
                ratio, advantage = (now - before).exp(), reward - mean
                clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
                divergence = ratio * ((first - now).exp() - (first - now) - 1)
                value = torch.minimum(ratio * advantage, clipped * advantage) - config.beta * divergence
                loss = loss - value.mean() / (2 * config.num_traces * len(traces))
    loss.backward()
    return reader.gradient(network, weights)


def relative_difference(found: Gradient, expected: Gradient) -> float:
    """Return the norm of the difference of two gradients, divided by the norm of the expected one."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name].double() - expected[name].double()).pow(2).sum()) for name in expected)
    norm = sum(float(expected[name].double().pow(2).sum()) for name in expected)
    assert norm > 0
    return float((difference / norm) ** 0.5)


def gradient_of(network: torch.nn.Module) -> Gradient:
    """Return copies of the gradients of all parameters that have one."""
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def _rewards(winner: Sequence[Written], loser: Sequence[Written], tie_credit: float) -> tuple[list[float], list[float]]:
    """Return the rewards of both groups: the fraction of parsed opponents against which the order is right."""

    def scores(traces: Sequence[Written]) -> list[float | None]:
        found = [re.search(r"<score>([0-9.]+)</score>$", trace.text) for trace in traces]
        return [float(match[1]) if match else None for match in found]

    def reward(own: float | None, others: list[float | None], credit: Callable[[float, float], float]) -> float:
        parsed = [other for other in others if other is not None]
        return 0.0 if own is None or not parsed else sum(credit(own, other) for other in parsed) / len(parsed)

    def better(own: float, other: float) -> float:
        return tie_credit if own == other else float(own > other)

    won, lost = scores(winner), scores(loser)
    return (
        [reward(own, lost, better) for own in won],
        [reward(own, won, lambda own, other: better(other, own)) for own in lost],
    )


def _tokens(tokenizer: Any, trace: Written) -> list[int]:
    text = trace.text + (tokenizer.eos_token if trace.ended else "")
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _scale(config: SftConfig | GcpoConfig) -> float | None:
    """Return the factor of the adapters' output, or None without adapters."""
    return config.lora and config.lora.alpha / config.lora.rank


class _Reader:
    """Compute the log-probabilities of one trace at a time with networks that have no adapters.

    If ``scale`` is set, the weights passed to this class are those of a network with adapters, and ``scale`` is the factor
    by which the adapters' output is multiplied. They are merged first.
    """

    def __init__(self, model: Path, precision: str, scale: float | None) -> None:
        self._model, self._autocast, self._scale = model, precision == "bf16-mixed", scale
        self._template = load_template(model)
        self._processor = load_processor(model, self._template)
        self.tokenizer = self._processor.tokenizer

    def network(self, weights: Gradient | None = None) -> Any:
        network = Qwen2_5_VLForConditionalGeneration.from_pretrained(self._model, dtype="float32")
        if weights is not None:
            full = weights if self._scale is None else merged_weights(weights, self._scale)
            for name, parameter in network.named_parameters():
                parameter.data.copy_(full[name])
        return network

    def gradient(self, network: Any, weights: Gradient) -> Gradient:
        """Return the gradient of ``network`` at ``weights``. With adapters, return the gradient of the adapters."""
        full = gradient_of(network)
        return full if self._scale is None else adapter_gradient(full, weights, self._scale)

    def prompt(self, instruction: str, principles: Any) -> str:
        messages = build_messages(self._template, instruction, principles)
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def log_probabilities(
        self,
        network: Any,
        prompt: str,
        images: Any,
        answer: list[int],
        temperature: float = 1.0,
        *,
        whole: bool = False,
    ) -> Tensor:
        """Return the log-probability of each token of ``answer``, or of each token but the first if ``whole``."""
        inputs = self._processor(text=[prompt], images=images, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(answer), dtype=torch.long)], dim=1)
        with torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext():
            logits = network(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds,
                pixel_values=inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"],
            ).logits  # fmt: skip
        start = 1 if whole else length
        values = (logits[0, start - 1 : -1].float() / temperature).log_softmax(-1)
        return values.gather(1, ids[0, start:, None])[:, 0]


@contextmanager
def _recorded_steps(trainer: type) -> Iterator[list[Step]]:
    steps: list[Step] = []
    create = trainer.create_optimizer  # type: ignore[attr-defined]

    def create_optimizer(self: Any, *args: Any, **kwargs: Any) -> Any:
        optimizer = create(self, *args, **kwargs)
        fill_adapters(self.model)
        step = optimizer.step

        def record(*step_args: Any, **step_kwargs: Any) -> Any:
            weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            steps.append(Step(weights, gradient_of(self.model)))
            return step(*step_args, **step_kwargs)

        optimizer.step = record
        return optimizer

    with patch.object(trainer, "create_optimizer", create_optimizer):
        yield steps
