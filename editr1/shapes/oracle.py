"""The labelling models of the shapes world: what a pool of large VLMs would answer, faults included.

They get what a VLM gets, pictures and text, and write what a VLM writes. Their faults are systematic: most members
call real faults of follow and keep fine, with a matching wrong reading, and all give the final mark mostly for follow.
Answers depend on nothing but settings, model name, system prompt, seed, pictures and text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from editr1.config.shapes import MemberSettings, OracleSettings
from editr1.data.types import Category, EncodedImage, Principle
from editr1.seeding import derive_rng, hash_parts
from editr1.shapes.drawing import Pixels
from editr1.shapes.edits import GROUND_PLACE, Operation, content_name, parse_instruction, place_name
from editr1.shapes.questions import Question, held, parse_question, read_prompt
from editr1.shapes.scene import NOTHING, Scene, near_object, other
from editr1.shapes.truth import Reading, as_pixels, read_pictures, rubric_from_categories
from editr1.shapes.vocabulary import BACKGROUNDS, OBJECTS, had_line, looks_line, want_line
from editr1.verifier.trace import format_trace

AnyPicture = Image.Image | Pixels | EncodedImage


class Oracle:
    """The pool. Methods are pure, take well under a millisecond, and raise ``ValueError`` for foreign instructions.

    Questions out of the world's grammar are answered 0 (unsure).
    """

    def __init__(self, settings: OracleSettings | None = None) -> None:
        self.settings = settings or OracleSettings()

    @property
    def models(self) -> Mapping[str, object]:
        """The pool's members by model name."""
        return self.settings.members

    def see(self, picture: EncodedImage) -> Pixels:
        """A picture as the methods below read it."""
        return as_pixels(picture)

    def answer(
        self,
        prompt: str,
        images: Sequence[AnyPicture],
        *,
        model: str = "",
        system: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Answer a chat whose user text is ``prompt``: the task is told from the words and the number of pictures.

        Two pictures and questions: a trace, or gold verdicts where the prompt speaks of ``"gold"``. Two pictures
        without questions: holistic marks. Else: whether the case is hard where the prompt speaks of ``"hard"``, or
        the principles.
        """
        instruction, questions = read_prompt(prompt)
        if len(images) == 2:
            source, edited = images
            if not questions:
                return self.holistic(
                    source, edited, instruction, model=model, system=system, temperature=temperature, seed=seed
                )
            if '"gold"' in prompt:
                return self.verify(source, edited, instruction, questions, model=model, system=system, seed=seed)
            return self.think(
                source, edited, instruction, questions, model=model, system=system, temperature=temperature, seed=seed
            )
        return self.difficulty(instruction) if '"hard"' in prompt else self.decompose(instruction)

    def decompose(self, instruction: str) -> str:
        """The principles as a JSON array of {question, category}."""
        return json.dumps(
            [
                {"question": item.question, "category": item.category.value}
                for item in parse_instruction(instruction).principles()
            ]
        )

    def difficulty(self, instruction: str) -> str:
        """``{"hard": bool, "reason": ...}``: moving and adding need exact placement."""
        operation = parse_instruction(instruction).operation
        hard = operation in (Operation.MOVE, Operation.ADD)
        return json.dumps({"hard": hard, "reason": f"{operation.value}: {'exact placement' if hard else 'one step'}"})

    def think(
        self,
        source: AnyPicture,
        edited: AnyPicture,
        instruction: str,
        questions: Sequence[str],
        *,
        model: str = "",
        system: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """One member's trace in canonical spelling; ``temperature`` scales the noise of the final mark."""
        member = self.member(model, system)
        before, after, rng = _look("think", model, system, seed, source, edited, instruction, questions)
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
        source: AnyPicture,
        edited: AnyPicture,
        instruction: str,
        questions: Sequence[str],
        *,
        model: str = "",
        system: str = "",
        seed: int = 0,
    ) -> str:
        """``{"gold": [{question, gold, reason}]}`` in the questions' order: the truth, wrong at a small rate."""
        before, after, rng = _look("verify", model, system, seed, source, edited, instruction, questions)
        gold = []
        for text in questions:
            question = parse_question(text)
            bit = 0 if question is None else question.verdict(before, after)
            bit ^= int(rng.random() < self.settings.gold_flips)
            reason = "cannot tell" if question is None else _line(question, bit, before, after, rng)
            gold.append({"question": text, "gold": bit, "reason": reason})
        return json.dumps({"gold": gold})

    def holistic(
        self,
        source: AnyPicture,
        edited: AnyPicture,
        instruction: str,
        *,
        model: str = "",
        system: str = "",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """VIEScore's form, ``{"reasoning": ..., "score": [success, no overediting]}``, two marks in [0, 10]."""
        member = self.member(model, system)
        edit = parse_instruction(instruction)
        before, after, rng = _look("holistic", model, system, seed, source, edited, instruction, ())
        bits: dict[Category, list[int]] = {kind: [] for kind in Category}
        for principle in edit.principles():
            bit = self._verdict(parse_question(principle.question), before, after, member, rng)
            bits[principle.category].append(bit)
        marks = []
        for kind in (Category.FOLLOW, Category.KEEP):
            mark = 10 * sum(bits[kind]) / len(bits[kind]) + temperature * rng.normal(0, member.noise)
            marks.append(round(min(10.0, max(0.0, mark)), 1))
        return json.dumps({"reasoning": f"{edit.operation.value}: {after.scene}", "score": marks})

    def member(self, model: str, system: str = "") -> MemberSettings:
        """The member behind a model name; unknown names get one by the hash of name and system prompt."""
        members = self.settings.members
        if model in members:
            return members[model]
        return list(members.values())[int.from_bytes(hash_parts(model, system)[:4], "little") % len(members)]

    def _verdict(
        self, question: Question | None, before: Scene, after: Reading, member: MemberSettings, rng: np.random.Generator
    ) -> int:
        lenient, flipped = rng.random() < member.leniency, rng.random() < member.flips
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
        share = sum(follow) / len(follow) if follow else 1.0
        lazy = settings.follow_done if share == 1 else settings.follow_floor + settings.follow_span * share
        mark = member.follow_only * lazy + (1 - member.follow_only) * rubric_from_categories(categories, bits)
        mark += temperature * rng.normal(0, member.noise)
        return float(min(10.0, max(0.0, round(mark / settings.step) * settings.step)))


def _look(
    task: str,
    model: str,
    system: str,
    seed: int,
    source: AnyPicture,
    edited: AnyPicture,
    instruction: str,
    questions: Sequence[str],
) -> tuple[Scene, Reading, np.random.Generator]:
    pixels = np.stack([as_pixels(source), as_pixels(edited)])
    readings = read_pictures(pixels)
    rng = derive_rng(task, model, system, seed, pixels.tobytes(), instruction, *questions)
    return readings.at(0).scene, readings.at(1), rng


def _line(question: Question, bit: int, before: Scene, after: Reading, rng: np.random.Generator) -> str:
    """The reasoning line that fits a verdict, right or wrong."""
    if question.category is Category.QUALITY:
        return looks_line(bit, bit)
    place, follow = question.place, question.category is Category.FOLLOW
    expected = question.wanted if follow else held(before, place)
    seen = held(after.scene, place)
    if bit:
        seen = expected
    elif seen == expected:
        seen = _mistaken(place, expected, rng)
    line = want_line if follow else had_line
    return line(place_name(place), content_name(place, expected), content_name(place, seen), bit)


def _mistaken(place: int, content: int, rng: np.random.Generator) -> int:
    if place == GROUND_PLACE:
        return other(content, len(BACKGROUNDS), rng)
    if content == NOTHING:
        return int(rng.integers(len(OBJECTS)))
    return near_object(content, rng)
