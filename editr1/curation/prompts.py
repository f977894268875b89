"""All prompts of curation (arXiv 2604.27505, section 3.1). Their wording is specific to this project.

The first line of a user message gives the task, and the data of the case is in tagged sections (``<instruction>``,
``<principles>``, ``<traces>``). :func:`read_task` and :func:`read_sections` parse both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import orjson

from editr1.config.curate import PrincipleCounts
from editr1.curation.experts import ExpertExample
from editr1.data.types import EditCase, EncodedImage, Principle


class Prompt(NamedTuple):
    """The system message, and the parts (texts and images) of the user message in order."""

    system: str
    parts: list[str | EncodedImage]


class Task(StrEnum):
    """The task that a prompt gives to a model, in the first line of the user message. The values are part of the prompts."""

    DIFFICULTY = "judge"
    DECOMPOSE = "decompose"
    THINK = "think"
    VERIFY = "verify"
    HOLISTIC = "holistic"


SCORER_RULES: Final = """\
How to mark:
- Write 1 for a question only when the picture shows it beyond doubt. Unsure means 0.
- A change of degree (bigger, brighter, slower, more of something) counts only when it is plain at first sight.
- An edited picture that is the source again, or nearly so, gets a final score of 0, whatever the questions say.
- Strips of white along the edges that the source did not have lower the final score.
- Anything that changed without being asked for was made up by the editor: find it, name it, and take off heavily.
- Argue positions with boxes [x1, y1, x2, y2] in fractions of the picture's width and height, not with impressions.
- A question may contradict the instruction. It still gets its 0 or 1, but plays no part in the final score.
- The final score is from 0 to 10, decimals allowed, and is no average. Start from 10 and take off for each fault what \
it would cost a person to repair it: 0 means nothing of the edit can be used, 5 that a part of it can, 8 that hardly \
anything is left to do."""

_ROLES: Final = {
    "plain": "You compare a picture with an edited version of it and mark how well the edit was done.",
    "sceptic": (
        "You are asked to find what is wrong with an edited picture. Believe nothing that you do not see: for every "
        "question look first for evidence that the answer is no."
    ),
    "retoucher": (
        "You are a retoucher who gets an edited picture back from a colleague. Whatever is wrong with it, you will "
        "have to repair by hand; think of each fault as the work it means."
    ),
    "surveyor": (
        "You survey pictures. Go through both pictures region by region, from the top left to the bottom right, write "
        "down what each holds, and only then answer."
    ),
}

_TRACE_FORM: Final = """\
Write your reasoning first, as plain text: what the instruction wants, what changed between the pictures, then every \
question in turn with what you see and your answer. After it write exactly these three lines, without code fences and \
with nothing after them:
[{"question": "<first question>", "score": <0 or 1>}, ...]  (every question word for word, in the order given)
{"average_score": <mean of the 0/1 scores>}
<score><final score></score>"""

_CATEGORIES: Final = """\
- "Instruction Following": what must be seen in the edited picture if the instruction was carried out in full.
- "Feature Preservation": what the instruction leaves alone and must look as before: people, things, text, background, \
light, style, framing.
- "Image Quality": whether the edited picture is sound where the edit could break it: seams, shapes, hands, shadows, \
texture, noise, added borders."""


def decompose(case: EditCase, experts: Sequence[ExpertExample], counts: PrincipleCounts) -> Prompt:
    """Build the prompt that requests the principles of ``case``. ``experts`` are shown as examples."""
    shown = "\n\n".join(
        f"Example {number}\nPicture: {item.picture}\nInstruction: {item.instruction}\nAnswer: {principles_json(item.principles)}"
        for number, item in enumerate(experts, start=1)
    )
    system = (
        "You turn an instruction to edit a picture into a checklist. Each entry is one question about the edited "
        "picture that a person can answer yes or no by looking at both pictures; yes always means that the edit is good in "
        "this respect. Ask about one thing at a time, name things by what and where they are, and ask nothing that this "
        "picture and this instruction do not call for.\n"
        f'Write {_number(counts.total)} questions: {_number(counts.follow)} of category "Instruction Following", '
        f'{_number(counts.keep)} of "Feature Preservation", {_number(counts.quality)} of "Image Quality".\n'
        f"{_CATEGORIES}\n"
        'Answer with a JSON array of {"question": ..., "category": ...} and nothing else.'
        + (f"\n\n{shown}" if shown else "")
    )
    return Prompt(system, [_task(Task.DECOMPOSE), case.source, _section("instruction", case.instruction)])


def think(case: EditCase, edited: EncodedImage, principles: Sequence[Principle], role: str = "plain") -> Prompt:
    """Build the prompt that requests a trace: reasoning, a verdict (0 or 1) per principle, their average, and a final score."""
    system = f"{_ROLES[role]}\n\n{SCORER_RULES}\n\n{_TRACE_FORM}"
    return Prompt(system, _both_images(Task.THINK, case, edited, principles))


def verify(case: EditCase, edited: EncodedImage, principles: Sequence[Principle], traces: Sequence[str] = ()) -> Prompt:
    """Build the prompt that requests the gold verdicts (reference answers). ``traces`` are shown as hints."""
    system = (
        "You set the reference answers to yes/no questions about an edited picture. Look at both pictures and decide each "
        "question by what you see yourself.\n"
        + (
            "Other models have answered before you; their notes are added. Use them as hints of where to look and never as "
            "truth: they may agree with one another and all be wrong.\n"
            if traces
            else ""
        )
        + "Rules:\n"
        "- 1 only when the picture shows it beyond doubt, else 0.\n"
        "- Something has moved only if it moved by at least a tenth of the picture's width or height.\n"
        "- A change of degree counts only when it is plain at first sight.\n"
        "- Answer each question by itself, also one that contradicts the instruction.\n"
        "Answer with one JSON object and nothing else, the list as long as the questions and in their order, each "
        "question word for word:\n"
        '{"gold": [{"question": "<question>", "gold": <0 or 1>, "reason": "<what you see, in a few words>"}, ...]}'
    )
    parts = _both_images(Task.VERIFY, case, edited, principles)
    if traces:
        notes = "\n\n".join(f"[note {number}]\n{text}" for number, text in enumerate(traces, start=1))
        parts.append(_section("traces", notes))
    return Prompt(system, parts)


def difficulty(case: EditCase) -> Prompt:
    """Build the prompt that asks whether ``case`` is hard."""
    system = (
        "You choose practice material for people who edit pictures. Look at the picture and the instruction and say "
        "whether the edit is hard. It is hard when at least one of these holds:\n"
        "- steps: it takes several edits that depend on one another;\n"
        "- detail: it concerns something small, fine or one of several alike;\n"
        "- implicit: the instruction does not say outright what the result should show;\n"
        "- placement: something has to end up at an exact place, size or pose.\n"
        "A single plain change (one colour, one filter, one large thing removed or exchanged) is not hard.\n"
        'Answer with one JSON object and nothing else: {"hard": <true or false>, "kinds": [<of steps, detail, implicit, '
        'placement>], "reason": "<one sentence>"}'
    )
    return Prompt(system, [_task(Task.DIFFICULTY), case.source, _section("instruction", case.instruction)])


def holistic(case: EditCase, edited: EncodedImage, role: str = "plain") -> Prompt:
    """Build the prompt that requests two ratings of the whole image without principles, as in VIEScore (arXiv 2312.14867)."""
    system = (
        f"{_ROLES[role]}\n\n{SCORER_RULES}\n\n"
        "Here there are no questions. Give two marks from 0 to 10, decimals allowed: first how far the instruction was "
        "carried out, second how far everything that it leaves alone is as before and sound.\n"
        'Answer with one JSON object and nothing else: {"reasoning": "<what you see>", "score": [<first>, <second>]}'
    )
    return Prompt(system, _both_images(Task.HOLISTIC, case, edited, ()))


def principles_json(principles: Sequence[Principle]) -> str:
    """Encode principles as a JSON array of {question, category}. Prompts and answers contain them in this form."""
    return orjson.dumps([{"question": item.question, "category": item.category.value} for item in principles]).decode()


def read_task(text: str) -> Task:
    """Return the task in the first line of a user message.

    Raises:
        ValueError: The first line does not contain a known task.
    """
    line = text.lstrip().partition("\n")[0].strip()
    name = line.removeprefix("Task:").strip()
    if not line.startswith("Task:") or name not in set(Task):
        allowed = ", ".join(f'"Task: {task}"' for task in Task)
        raise ValueError(f"the first line of the user message is {line[:80]!r}; it must be one of {allowed}")
    return Task(name)


def read_sections(text: str) -> dict[str, str]:
    """Return the tagged sections in the text of a user message. The result maps each tag to the content of its section."""
    return {match["tag"]: match["body"] for match in _SECTION.finditer(text)}


_SECTION: Final = re.compile(
    r"<(?P<tag>instruction|principles|traces)>\n(?P<body>.*?)\n</(?P=tag)>(?:\n|\Z)", re.DOTALL
)


def _both_images(
    task: Task, case: EditCase, edited: EncodedImage, principles: Sequence[Principle]
) -> list[str | EncodedImage]:
    # The edited image comes last, so that a prefix cache covers the rest for all candidates of a case.
    questions = _section("principles", principles_json(principles)) if principles else ""
    return [
        f"{_task(task)}The picture before:",
        case.source,
        f"{_section('instruction', case.instruction)}{questions}The picture after:",
        edited,
    ]


def _task(task: Task) -> str:
    return f"Task: {task}\n"


def _section(tag: str, body: str) -> str:
    return f"<{tag}>\n{body}\n</{tag}>\n"


def _number(limits: tuple[int, int]) -> str:
    least, most = limits
    return str(least) if least == most else f"{least} to {most}"
