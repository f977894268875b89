"""Training rows on disk: checked once, kept in a memory-mapped file, pictures decoded when a batch needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError
from PIL.Image import Image
from transformers import ProcessorMixin

from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.data.images import ImageError, decode_image, image_size
from editr1.data.tables import read_column, read_table
from editr1.data.types import EditCase, PreferencePair, Principle, SftRow
from editr1.parallel.context import DistributedContext
from editr1.verifier.chat import build_messages
from editr1.verifier.prompt import PromptTemplate

Messages = list[dict[str, Any]]


class TokenCounter:
    """Counts the tokens that a case takes, pictures included, from text and picture headers alone."""

    def __init__(self, processor: ProcessorMixin, template: PromptTemplate) -> None:
        self._processor = processor
        self._template = template
        self._merge = int(processor.image_processor.merge_size) ** 2
        self.settings = (template.model_dump_json(), str(processor.tokenizer.chat_template))
        """What the counts and texts depend on, apart from the tokenizer's vocabulary."""
        self._picture_tokens = lru_cache(maxsize=4096)(self._count_picture)

    def render(self, case: EditCase, trace: str | None = None) -> tuple[str, str]:
        """Prompt and completion as the chat template writes them; the completion is empty without a trace."""
        messages = build_messages(self._template, case.instruction, case.principles)
        prompt = str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if trace is None:
            return prompt, ""
        answer = {"role": "assistant", "content": [{"type": "text", "text": trace}]}
        whole = str(self._processor.apply_chat_template([*messages, answer], tokenize=False))
        if not whole.startswith(prompt):
            raise ConfigError(
                "the chat template writes a prompt differently once it is answered; it cannot be trained on"
            )
        return prompt, whole[len(prompt) :]

    def count(self, text: str, pictures: Sequence[bytes]) -> int:
        """Tokens of ``text``, whose picture placeholders stand for ``pictures``."""
        words = len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        return words + sum(self._picture_tokens(image_size(data)) - 1 for data in pictures)

    def _count_picture(self, size: tuple[int, int]) -> int:
        width, height = size
        return int(self._processor.image_processor.get_number_of_image_patches(height, width, {})) // self._merge


class RowCache:
    """Rows of a table on disk, written once per node and memory-mapped by all of the node's processes."""

    def __init__(self, folder: Path, context: DistributedContext) -> None:
        self._folder = folder / f"rows-{context.node_rank}"
        self._context = context

    def dataset(self, rows: Callable[[], Iterator[dict[str, Any]]], path: Path, *settings: str) -> Dataset:
        """Return what ``rows`` yields, written unless the folder has it for this file and these ``settings``.

        The first process of each node writes. Raises :class:`TableError` if there is no such file or it has no rows.
        """
        if not path.is_file():
            raise TableError(path, None, None, None, "no such file")
        found = path.stat()
        name = "\0".join((str(path.resolve()), str(found.st_size), str(found.st_mtime_ns), *settings))
        try:
            with self._context.local_main_process_first():
                dataset = Dataset.from_generator(
                    rows,
                    cache_dir=str(self._folder),
                    fingerprint=hashlib.sha256(name.encode()).hexdigest()[:32],
                )
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, SchemaInferenceError):  # no row was yielded
                raise TableError(path, None, None, None, "no rows to train on") from None
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise
        return dataset


def sft_rows(path: Path, processor: ProcessorMixin, template: PromptTemplate, limit: int, cache: RowCache) -> Dataset:
    """Rows ``{"images": [source, edited], "prompt", "completion"}`` of a Parquet file of :class:`SftRow`.

    Texts are rendered once by the chat template; pictures are decoded at access. Raises :class:`TableError` naming the
    file and row when there is none, when a picture's header cannot be read, or when a row takes more than ``limit``
    tokens: cutting it would cut the score.
    """
    counter = TokenCounter(processor, template)

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read_table(path, SftRow), start=1):
            case, edited = row.quadruple.case, row.quadruple.candidate.image.data
            prompt, completion = counter.render(case, row.trace)
            _check_length(counter, prompt + completion, (case.source.data, edited), path, number, limit)
            yield {"source": case.source.data, "edited": edited, "prompt": prompt, "completion": completion}

    dataset = cache.dataset(rows, path, "sft", *counter.settings, str(limit))
    dataset.set_transform(_decoded)
    return dataset


def pair_rows(
    path: Path,
    processor: ProcessorMixin,
    template: PromptTemplate,
    limit: int,
    new_tokens: int,
    cache: RowCache,
    *,
    most: int | None = None,
    shuffle: int | None = None,
) -> tuple[Dataset, int]:
    """The pairs of a Parquet file of :class:`PreferencePair` that people decided, and how many "same" pairs were left out.

    At most the first ``most`` are taken. ``shuffle`` is the seed of a control: winner and loser change places in half of
    them at random, so that nothing is left to learn from.

    Raises :class:`TableError` naming file and row when no decided pair is there, when a picture's header cannot be
    read, when a case has no principles, or when a prompt with ``new_tokens`` more takes more than ``limit`` tokens.
    """
    counter = TokenCounter(processor, template)

    def rows() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(shuffle)
        taken = 0
        for number, pair in enumerate(read_table(path, PreferencePair), start=1):
            if taken == most:
                return
            if pair.label != "winner":
                continue
            taken += 1
            case = pair.case
            if shuffle is not None and rng.random() < 0.5:
                pair = pair.model_copy(update={"winner": pair.loser, "loser": pair.winner})
            if not case.principles:
                raise TableError(path, number, "case.principles", None, "empty; GCPO needs at least one principle")
            prompt, _ = counter.render(case)
            for candidate in (pair.winner, pair.loser):
                pictures = (case.source.data, candidate.image.data)
                _check_length(counter, prompt, pictures, path, number, limit, new_tokens)
            yield {
                "source": case.source.data,
                "winner": pair.winner.image.data,
                "loser": pair.loser.image.data,
                "instruction": case.instruction,
                "questions": [item.question for item in case.principles],
                "categories": [item.category.value for item in case.principles],
            }

    kind = f"gcpo {most} {shuffle}"
    dataset = cache.dataset(rows, path, kind, *counter.settings, str(limit), str(new_tokens))
    return PairRows(dataset, template).dataset(), read_column(path, "label").count("same")


class PairRows:
    """Rows of pairs by number: row 2i is the winner of pair i, row 2i + 1 its loser.

    The last rows read are kept, so that the traces of one candidate share one decoded picture.
    """

    def __init__(self, pairs: Dataset, template: PromptTemplate, keep: int = 256) -> None:
        self._pairs = pairs
        self._template = template
        self._read = lru_cache(maxsize=keep)(self._read_row)

    def dataset(self) -> Dataset:
        """``{"prompt", "images", "principles"}`` a row, read when a batch asks for it."""
        rows = Dataset.from_dict({"row": range(2 * len(self._pairs))})
        # by hand, because set_transform would hash all that the transform refers to
        rows._format_type, rows._format_kwargs = "custom", {"transform": self.__call__}
        return rows

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """The rows of the numbers in ``batch["row"]``, in their order."""
        rows = [self._read(number) for number in batch["row"]]
        return {name: [row[name] for row in rows] for name in ("prompt", "images", "principles")}

    def _read_row(self, number: int) -> dict[str, Any]:
        row = self._pairs[number // 2]
        principles = tuple(
            Principle(question=question, category=category)
            for question, category in zip(row["questions"], row["categories"], strict=True)
        )
        return {
            "prompt": build_messages(self._template, row["instruction"], principles),
            "images": [decode_image(row["source"]), decode_image(row["loser" if number % 2 else "winner"])],
            "principles": principles,
        }


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    images: list[list[Image]] = [
        [decode_image(source), decode_image(edited)]
        for source, edited in zip(batch["source"], batch["edited"], strict=True)
    ]
    return {"images": images, "prompt": batch["prompt"], "completion": batch["completion"]}


def _check_length(
    counter: TokenCounter,
    text: str,
    pictures: Sequence[bytes],
    path: Path,
    number: int,
    limit: int,
    new_tokens: int = 0,
) -> None:
    try:
        tokens = counter.count(text, pictures) + new_tokens
    except ImageError as error:
        raise TableError(path, number, None, None, str(error)) from error
    if tokens > limit:
        trace = f" ({new_tokens} of them for the trace)" if new_tokens else ""
        rule = f"takes {tokens} tokens{trace}, the limit is {limit}; lower max_pixels or leave the row out"
        raise TableError(path, number, None, None, rule)
