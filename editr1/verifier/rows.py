"""Training rows of SFT and GCPO.

Rows are read from a Parquet file, validated once, and stored on disk, where all processes of a node memory-map them. Images
are decoded when a row is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError
from PIL.Image import Image
from transformers import ProcessorMixin

from editr1.artifacts.hashing import file_sha256
from editr1.data.errors import TableError
from editr1.data.images import decode_image
from editr1.data.tables import read_column
from editr1.data.types import PreferencePair, Principle, SftRow
from editr1.data.valid_rows import read_valid_rows
from editr1.parallel.context import DistributedContext
from editr1.verifier.chat import build_messages
from editr1.verifier.pair_layout import pair_of_row, row_count
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.prompt_length import LengthCheck, TokenCounter
from editr1.verifier.trace import parse_trace

Messages = list[dict[str, Any]]


class RowCache:
    """Cache of training rows on disk. It is written once per node, and all processes of the node memory-map it."""

    def __init__(self, folder: Path, context: DistributedContext) -> None:
        self._folder = folder / f"rows-{context.node_rank}"
        self._context = context

    def dataset(self, rows: Callable[[], Iterator[dict[str, Any]]], path: Path, *settings: str) -> Dataset:
        """Return a dataset of the rows that ``rows`` yields from the table ``path``.

        The first process of each node writes the dataset, unless the cache already has one for the same file (path, size and
        modification time) and the same ``settings``, whose files are unchanged. Raises TableError if ``path`` does not exist or
        ``rows`` yields no row.
        """
        if not path.is_file():
            raise TableError(path, None, None, None, "no such file; check the path")
        status = path.stat()
        name = "\0".join((str(path.resolve()), str(status.st_size), str(status.st_mtime_ns), *settings))
        try:
            with self._context.local_main_process_first():
                if self._context.is_local_main and not self._is_intact():
                    shutil.rmtree(self._folder, ignore_errors=True)
                dataset = Dataset.from_generator(
                    rows,
                    cache_dir=str(self._folder),
                    fingerprint=hashlib.sha256(name.encode()).hexdigest()[:32],
                )
                if self._context.is_local_main:
                    self._write_digests(dataset)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, SchemaInferenceError):  # The generator yielded no row.
                raise TableError(
                    path, None, None, None, "no rows to train on; add rows (SFT) or pairs with a winner (GCPO)"
                ) from None
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise
        return dataset

    def _is_intact(self) -> bool:
        """Return True if every file in the cache has the digest that was stored when it was written."""
        try:
            return all(file_sha256(Path(path)) == digest for path, digest in self._read_digests().items())
        except (OSError, ValueError, AttributeError):
            return False

    def _read_digests(self) -> dict[str, str]:
        digests: dict[str, str] = json.loads(self._digests.read_bytes())
        return digests

    def _write_digests(self, dataset: Dataset) -> None:
        known = self._read_digests() if self._digests.is_file() else {}
        paths = [str(file["filename"]) for file in dataset.cache_files]
        new = {path: file_sha256(Path(path)) for path in paths if path not in known}
        part = self._digests.with_suffix(".part")
        part.write_text(json.dumps(known | new), encoding="utf-8")
        part.replace(self._digests)

    @property
    def _digests(self) -> Path:
        return self._folder / "digests.json"


def sft_rows(path: Path, processor: ProcessorMixin, template: PromptTemplate, limit: int, cache: RowCache) -> Dataset:
    """Return a dataset of ``{"images": [source, edited], "prompt", "completion"}`` from a Parquet file of :class:`SftRow` rows.

    Texts are rendered once with the chat template. Images are decoded when a row is read.

    Raises:
        TableError: there is no row, a row violates a rule of :mod:`editr1.data.rules`, or a row has more than ``limit``
            tokens. Long rows are not truncated, because that would cut off the score at the end of the trace.
    """
    counter = TokenCounter(processor, template)
    check = LengthCheck(counter, path, limit)

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in read_valid_rows(path, SftRow, needs_principles=True, parse=parse_trace):
            case, edited = row.quadruple.case, row.quadruple.candidate.image.data
            prompt, completion = counter.render(case, row.trace)
            check(number, prompt + completion, (case.source.data, edited))
            yield {"source": case.source.data, "edited": edited, "prompt": prompt, "completion": completion}

    dataset = cache.dataset(rows, path, "sft", *counter.settings, str(limit))
    dataset.set_transform(_decode_batch)
    return dataset


def pair_rows(
    path: Path,
    processor: ProcessorMixin,
    template: PromptTemplate,
    limit: int,
    max_new_tokens: int,
    cache: RowCache,
    *,
    max_pairs: int | None = None,
    shuffle_seed: int | None = None,
) -> tuple[Dataset, int]:
    """Return the GCPO training rows of a Parquet file of :class:`PreferencePair` rows, and the number of pairs labelled "same".

    A decided pair, which has a winner and a loser, becomes two training rows. Pairs labelled "same" are skipped.

    Args:
        path: Parquet file with the preference pairs.
        processor: processor of the model.
        template: prompt template of the model.
        limit: maximum number of tokens of a prompt and its trace.
        max_new_tokens: number of tokens reserved for the trace.
        cache: cache of the rows on disk.
        max_pairs: use at most the first ``max_pairs`` decided pairs.
        shuffle_seed: if given, swap winner and loser in a random half of the pairs. This serves a control experiment
            in which the labels carry no information.

    Raises:
        TableError: there is no decided pair, a row violates a rule of :mod:`editr1.data.rules`, or a prompt has more than
            ``limit - max_new_tokens`` tokens.
    """
    counter = TokenCounter(processor, template)
    check = LengthCheck(counter, path, limit, max_new_tokens)

    def rows() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(shuffle_seed)
        taken = 0
        for number, pair in read_valid_rows(path, PreferencePair, needs_principles=True):
            if pair.label != "winner":
                continue
            taken += 1
            case = pair.case
            if shuffle_seed is not None and rng.random() < 0.5:
                pair = pair.model_copy(update={"winner": pair.loser, "loser": pair.winner})
            prompt, _ = counter.render(case)
            for candidate in (pair.winner, pair.loser):
                check(number, prompt, (case.source.data, candidate.image.data))
            yield {
                "source": case.source.data,
                "winner": pair.winner.image.data,
                "loser": pair.loser.image.data,
                "instruction": case.instruction,
                "questions": [item.question for item in case.principles],
                "categories": [item.category.value for item in case.principles],
            }
            if taken == max_pairs:
                return

    kind = f"gcpo {max_pairs} {shuffle_seed}"
    dataset = cache.dataset(rows, path, kind, *counter.settings, str(limit), str(max_new_tokens))
    return PairRows(dataset, template).dataset(), read_column(path, "label").count("same")


class PairRows:
    """GCPO training rows by row number, in the order of :mod:`editr1.verifier.pair_layout`.

    The most recently used rows stay in memory, so the traces for one edited image share the decoded image.
    """

    def __init__(self, pairs: Dataset, template: PromptTemplate, cache_size: int = 256) -> None:
        self._pairs = pairs
        self._template = template
        self._read = lru_cache(maxsize=cache_size)(self._read_row)

    def dataset(self) -> Dataset:
        """Return a dataset of ``{"row", "prompt", "images", "principles"}``. A row is loaded when it is accessed."""
        rows = Dataset.from_dict({"row": range(row_count(len(self._pairs)))})
        # set_transform() would hash every object that the transform refers to.
        rows._format_type, rows._format_kwargs = "custom", {"transform": self.__call__}
        return rows

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Return the rows whose numbers are in ``batch["row"]``, in the same order."""
        rows = [self._read(number) for number in batch["row"]]
        return {name: [row[name] for row in rows] for name in ("row", "prompt", "images", "principles")}

    def _read_row(self, number: int) -> dict[str, Any]:
        pair, side = pair_of_row(number)
        row = self._pairs[pair]
        principles = tuple(
            Principle(question=question, category=category)
            for question, category in zip(row["questions"], row["categories"], strict=True)
        )
        return {
            "row": number,
            "prompt": build_messages(self._template, row["instruction"], principles),
            "images": [decode_image(row["source"]), decode_image(row[side])],
            "principles": principles,
        }


def _decode_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    images: list[list[Image]] = [
        [decode_image(source), decode_image(edited)]
        for source, edited in zip(batch["source"], batch["edited"], strict=True)
    ]
    return {"images": images, "prompt": batch["prompt"], "completion": batch["completion"]}
