"""Simulated labelling models for the shapes dataset, with the typical errors of a pool of large VLMs.

Like VLMs, they receive images and text, and their answers have the same format. Their errors are systematic. Most
members of the pool overlook faults in the categories follow and keep. In such cases, they describe image content that
agrees with the wrong verdict. All members base the final score mostly on the category follow. An answer depends only
on the settings, the model name, the system prompt, the seed, the images and the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from editr1.config.shapes import LabellerSettings, MemberSettings
from editr1.data.types import Category, EncodedImage, Principle
from editr1.seeding import derive_rng, hash_parts
from editr1.shapes.edits import BACKGROUND_PLACE, Operation, content_name, parse_instruction, place_name
from editr1.shapes.questions import Question, content_at, parse_question
from editr1.shapes.rendering import Pixels
from editr1.shapes.scene import NOTHING, Scene, different_value, similar_object
from editr1.shapes.truth import Reading, as_pixels, read_images, rubric_from_categories
from editr1.shapes.vocabulary import BACKGROUNDS, OBJECTS, follow_line, keep_line, quality_line
from editr1.verifier.trace import format_trace

AnyImage = Image.Image | Pixels | EncodedImage


class ShapesLabeller:
    """The pool of labelling models. Each method is a pure function of its arguments and the settings.

    If an instruction does not belong to the shapes dataset, ValueError is raised. A question that cannot be parsed gets
    the answer 0.
    """

    def __init__(self, settings: LabellerSettings | None = None) -> None:
        self.settings = settings or LabellerSettings()

    @property
    def models(self) -> Mapping[str, object]:
        """Settings of each member of the pool, by model name."""
        return self.settings.members

    def decode(self, image: EncodedImage) -> Pixels:
        """Decode an image for the methods ``think``, ``verify`` and ``holistic``."""
        return as_pixels(image)

    def decompose(self, instruction: str) -> str:
        """Return the principles of an instruction as a JSON array of {question, category}."""
        return json.dumps(
            [
                {"question": item.question, "category": item.category.value}
                for item in parse_instruction(instruction).principles()
            ]
        )

    def difficulty(self, instruction: str) -> str:
        """Return JSON that states whether an instruction is hard.

        Instructions that move or add an object are hard.
        """
        operation = parse_instruction(instruction).operation
        hard = operation in (Operation.MOVE, Operation.ADD)
        return json.dumps({"hard": hard, "reason": f"{operation.value}: {'exact placement' if hard else 'one step'}"})

    def think(
        self,
        source: AnyImage,
        edited: AnyImage,
        instruction: str,
        questions: Sequence[str],
        *,
        model: str = "",
        system: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Return the trace of one pool member for an edit. ``temperature`` scales the noise of the final score."""
        member = self.member(model, system)
        before, after, rng = _observe("think", model, system, seed, source, edited, instruction, questions)
        parsed = [parse_question(question) for question in questions]
        bits = [self._verdict(question, before, after, member, rng) for question in parsed]
        lines = [
            "cannot tell, no;" if question is None else _line(question, bit, before, after, rng)
            for question, bit in zip(parsed, bits, strict=True)
        ]
        categories = [Category.QUALITY if question is None else question.category for question in parsed]
        score = self._score(categories, bits, member, temperature, rng)
        principles = [
            Principle(question=question, category=category)
            for question, category in zip(questions, categories, strict=True)
        ]
        return format_trace("\n".join(lines), principles, bits, score)

    def verify(
        self,
        source: AnyImage,
        edited: AnyImage,
        instruction: str,
        questions: Sequence[str],
        *,
        model: str = "",
        system: str = "",
        seed: int = 0,
    ) -> str:
        """Return gold verdicts as ``{"gold": [{question, gold, reason}]}``.

        They are correct except for a few random errors.
        """
        before, after, rng = _observe("verify", model, system, seed, source, edited, instruction, questions)
        gold = []
        for text in questions:
            question = parse_question(text)
            bit = 0 if question is None else question.verdict(before, after)
            bit ^= int(rng.random() < self.settings.gold_flip_rate)
            reason = "cannot tell" if question is None else _line(question, bit, before, after, rng)
            gold.append({"question": text, "gold": bit, "reason": reason})
        return json.dumps({"gold": gold})

    def holistic(
        self,
        source: AnyImage,
        edited: AnyImage,
        instruction: str,
        *,
        model: str = "",
        system: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Return two scores in [0, 10], one for follow and one for keep, as JSON in the format of VIEScore."""
        member = self.member(model, system)
        edit = parse_instruction(instruction)
        before, after, rng = _observe("holistic", model, system, seed, source, edited, instruction, ())
        bits: dict[Category, list[int]] = {kind: [] for kind in Category}
        for principle in edit.principles():
            bit = self._verdict(parse_question(principle.question), before, after, member, rng)
            bits[principle.category].append(bit)
        scores = []
        for kind in (Category.FOLLOW, Category.KEEP):
            score = 10 * sum(bits[kind]) / len(bits[kind]) + temperature * rng.normal(0, member.noise)
            scores.append(round(min(10.0, max(0.0, score)), 1))
        return json.dumps({"reasoning": f"{edit.operation.value}: {after.scene}", "score": scores})

    def member(self, model: str, system: str = "") -> MemberSettings:
        """Return the member of the pool with this model name.

        If no member has this name, a hash of the model name and the system prompt selects a member.
        """
        members = self.settings.members
        if model in members:
            return members[model]
        return list(members.values())[int.from_bytes(hash_parts(model, system)[:4], "little") % len(members)]

    def _verdict(
        self, question: Question | None, before: Scene, after: Reading, member: MemberSettings, rng: np.random.Generator
    ) -> int:
        lenient, flipped = rng.random() < member.leniency, rng.random() < member.flip_rate
        if question is None:
            return 0
        bit = question.verdict(before, after)
        if lenient and question.category is not Category.QUALITY:
            bit = 1
        return bit ^ int(flipped)

    def _score(
        self,
        categories: Sequence[Category],
        bits: Sequence[int],
        member: MemberSettings,
        temperature: float,
        rng: np.random.Generator,
    ) -> float:
        settings = self.settings
        follow = [bit for bit, kind in zip(bits, categories, strict=True) if kind is Category.FOLLOW]
        fraction = sum(follow) / len(follow) if follow else 1.0
        by_follow = settings.follow_done if fraction == 1 else settings.follow_floor + settings.follow_span * fraction
        score = member.follow_only_weight * by_follow + (1 - member.follow_only_weight) * rubric_from_categories(
            categories, bits
        )
        score += temperature * rng.normal(0, member.noise)
        return float(min(10.0, max(0.0, round(score / settings.step) * settings.step)))


def _observe(
    task: str,
    model: str,
    system: str,
    seed: int,
    source: AnyImage,
    edited: AnyImage,
    instruction: str,
    questions: Sequence[str],
) -> tuple[Scene, Reading, np.random.Generator]:
    """Return the contents of both images, and a random number generator seeded with all arguments.

    Identical requests therefore get identical answers.
    """
    pixels = np.stack([as_pixels(source), as_pixels(edited)])
    readings = read_images(pixels)
    rng = derive_rng(task, model, system, seed, pixels.tobytes(), instruction, *questions)
    return readings.at(0).scene, readings.at(1), rng


def _line(question: Question, bit: int, before: Scene, after: Reading, rng: np.random.Generator) -> str:
    """Return the reasoning line for a verdict.

    If the verdict is wrong, the line describes content that agrees with the verdict but not with the edited image.
    """
    if question.category is Category.QUALITY:
        return quality_line(bit, bit)
    place, follow = question.place, question.category is Category.FOLLOW
    expected = question.content if follow else content_at(before, place)
    seen = content_at(after.scene, place)
    if bit:
        seen = expected
    elif seen == expected:
        seen = _wrong_content(place, expected, rng)
    line = follow_line if follow else keep_line
    return line(place_name(place), content_name(place, expected), content_name(place, seen), bit)


def _wrong_content(place: int, content: int, rng: np.random.Generator) -> int:
    if place == BACKGROUND_PLACE:
        return different_value(content, len(BACKGROUNDS), rng)
    if content == NOTHING:
        return int(rng.integers(len(OBJECTS)))
    return similar_object(content, rng)
