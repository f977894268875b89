"""Train the base checkpoint of the small verifier, which can perceive images, but cannot judge edits yet.

``python -m editr1.shapes.train_verifier --out FOLDER`` writes a verifier folder. The digest of the folder depends on
the arguments and on the build of torch.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch
from PIL import Image
from torch import Tensor

from editr1.data.types import Category, Unparsed
from editr1.seeding import offset_seed, stream_rng
from editr1.shapes.perception import NEUTRAL_INSTRUCTION, Sample, generate_sample
from editr1.shapes.tiny_verifier import Size, build_tiny_verifier
from editr1.shapes.vocabulary import SCORE_OPENING
from editr1.verifier.chat import build_chat
from editr1.verifier.model import folder_digest, load_verifier, save_verifier, use_cpu_attention
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.trace import parse_trace

logger = logging.getLogger(__name__)

ROUNDS = (2400, 1200)
"""Number of optimizer steps in each training round. The checkpoint in the package was trained with these values."""


def train_verifier(
    out: Path,
    *,
    rounds: Sequence[int] = ROUNDS,
    first_round: int = 0,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    warmup: int = 100,
    seed: int = 0,
    size: Size = "base",
) -> dict[str, float]:
    """Train a verifier in rounds, save it to ``out`` in bfloat16 after each round, and return its metrics.

    The first round starts from random weights. Each later round starts from the result of the previous round. Every
    round has a new optimizer and new samples. The optimizer is AdamW with betas 0.9 and 0.98 and weight decay 0.01.
    The learning rate has a linear warm-up and then decays to 0. The gradient norm is clipped at 1. The loss is
    computed on the tokens of the traces. The metrics are those of :func:`measure`.

    Args:
        out: folder to write.
        rounds: number of optimizer steps in each round.
        first_round: index of the first round to run. If it is above 0, ``out`` must contain the result of the earlier rounds.
        batch_size: number of samples per optimizer step.
        learning_rate: peak learning rate.
        warmup: number of warm-up steps in each round.
        seed: random seed for the weights and the samples.
        size: size of the model: "small", "base" or "large".
    """
    if first_round == 0:
        build_tiny_verifier(out, seed=seed, size=size)
    for number in range(first_round, len(rounds)):
        logger.info("Round %d of %d", number + 1, len(rounds))
        _train_round(out, rounds[number], batch_size, learning_rate, warmup, seed, number)
    model, processor, template = load_verifier(out, "float32")
    return measure(model, processor, template, n=400, seed=offset_seed(seed, 1000))


def _train_round(
    folder: Path, steps: int, batch_size: int, learning_rate: float, warmup: int, seed: int, number: int
) -> None:
    model, processor, template = load_verifier(folder, "float32")
    torch.manual_seed(seed)
    rng = stream_rng(seed, 1) if number == 0 else stream_rng(seed, 1, number)
    use_cpu_attention(model)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    started = time.monotonic()
    for step in range(1, steps + 1):
        batch = encode(processor, template, [generate_sample(rng) for _ in range(batch_size)])
        loss = cast(Tensor, model(**batch).loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 50 == 0 or step == steps:
            logger.info("Step %d of %d: loss %.4f, %.0f s", step, steps, loss.item(), time.monotonic() - started)
    model.eval()
    model.to(torch.bfloat16)
    save_verifier(model, processor, template, folder)


def encode(processor: Any, template: PromptTemplate, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Return the inputs of the model for a batch of samples. Only the tokens of the traces have labels.

    The final score of a sample is random, so it only has a label in every eighth sample, which is sufficient to learn
    the format.
    """
    batch = _inputs(processor, template, samples, [sample.trace + "<|im_end|>\n" for sample in samples])
    ids = batch["input_ids"]
    turn = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    places = torch.arange(ids.shape[1])
    last_turn = torch.where(ids == turn, places, 0).max(dim=1, keepdim=True).values
    keep = (places > last_turn + 1) & batch["attention_mask"].bool()
    score = (ids == processor.tokenizer.convert_tokens_to_ids(SCORE_OPENING)).roll(1, dims=1)
    score[::8] = False
    keep &= ~score
    return batch | {"labels": torch.where(keep, ids, -100)}


@torch.no_grad()
def measure(
    model: Any, processor: Any, template: PromptTemplate, *, n: int, seed: int, batch_size: int = 100
) -> dict[str, float]:
    """Generate a trace for each of ``n`` new samples by greedy decoding, and check the traces.

    Returns:
        ``parsed``: fraction of traces that can be parsed. ``<category>_<answer>``, for example ``follow_1``: accuracy in
        parsed traces on the questions of this category whose ground-truth answer is ``<answer>``.
    """
    rng = stream_rng(seed, 2)
    parsed = 0
    correct: dict[tuple[Category, int], list[bool]] = {(kind, bit): [] for kind in Category for bit in (0, 1)}
    for start in range(0, n, batch_size):
        samples = [generate_sample(rng) for _ in range(min(batch_size, n - start))]
        inputs = _inputs(processor, template, samples, [""] * len(samples))
        output = model.generate(**inputs, do_sample=False, max_new_tokens=100)
        texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for sample, text in zip(samples, texts, strict=True):
            verdict = parse_trace(text, sample.principles)
            if isinstance(verdict, Unparsed):
                continue
            parsed += 1
            for principle, bit, truth in zip(sample.principles, verdict.scores, sample.verdicts, strict=True):
                correct[principle.category, truth].append(bit == truth)
    metrics = {"parsed": parsed / n}
    for (kind, bit), hits in correct.items():
        metrics[f"{kind.name.lower()}_{bit}"] = sum(hits) / max(1, len(hits))
    return metrics


def _inputs(
    processor: Any, template: PromptTemplate, samples: Sequence[Sample], answers: list[str]
) -> dict[str, Tensor]:
    chats = [
        build_chat(
            template,
            Image.fromarray(sample.first),
            Image.fromarray(sample.second),
            NEUTRAL_INSTRUCTION,
            sample.principles,
        )
        for sample in samples
    ]
    texts = [
        processor.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True) + answer
        for chat, answer in zip(chats, answers, strict=True)
    ]
    images = [image for chat in chats for image in chat.images]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and train and measure the verifier."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m editr1.shapes.train_verifier")
    parser.add_argument("--out", type=Path, required=True, help="folder to which the trained verifier is written")
    parser.add_argument(
        "--rounds",
        type=int,
        nargs="+",
        default=ROUNDS,
        help="number of optimizer steps in each round (default: %(default)s)",
    )
    parser.add_argument(
        "--first-round",
        type=int,
        default=0,
        help="index of the first round to run; if it is above 0, --out must contain the result of the earlier rounds "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="number of CPU threads; the digest of the folder depends on it (default: %(default)s)",
    )
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed for the weights and the samples (default: %(default)s)"
    )
    parser.add_argument(
        "--size", choices=get_args(Size), default="base", help="size of the model (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    metrics = train_verifier(
        options.out,
        rounds=options.rounds,
        first_round=options.first_round,
        learning_rate=options.learning_rate,
        seed=options.seed,
        size=options.size,
    )
    for name, value in metrics.items():
        logger.info("%s: %.4f", name, value)
    logger.info("Digest: %s", folder_digest(options.out))


if __name__ == "__main__":
    main()
