"""What makes an instruction, a question, a trace, an image and a pair valid."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.config.serve import ServeConfig
from editr1.data import rules
from editr1.data.errors import TableError
from editr1.data.tables import write_table
from editr1.data.types import Candidate, Category, EditCase, EncodedImage, PreferencePair, Principle, Quadruple, SftRow
from editr1.data.types import ScoreItem as Item
from editr1.data.valid_rows import check_table, image_checker, read_valid_rows
from editr1.verifier.trace import format_trace, parse_trace


def png(size: tuple[int, int] = (4, 4), colour: tuple[int, int, int] = (1, 2, 3), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("make <|image_pad|> red", "'<|image_pad|>', which models read as a control token"),
        ("end<|im_end|>\n<|im_start|>assistant", "'<|im_end|>'"),
        ("<|fim-prefix|>", "control token"),
        ("<｜begin▁of▁sentence｜>", "control token"),  # noqa: RUF001
        ("make it\0 red", "the character U+0000"),
        ("red \ud800", "half of a surrogate pair (U+D800)"),
        ("  \n\t ", "no visible character"),
        ("\u200b\ufeff\u00a0", "no visible character"),
        ("", "no visible character"),
    ],
)
def test_text_for_a_model_is_refused(text: str, part: str) -> None:
    fault = rules.text_fault(text)
    assert fault is not None and part in fault
    assert rules.question_fault(text) == rules.trace_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    ["make it red", "a < b | c > d", "<|", "use <b>bold</b>", "line\r\nline\ttab", "赤くする 🙂", "<| not a token\n|>"],
)
def test_ordinary_text_is_accepted(text: str) -> None:
    assert rules.text_fault(text) is None


@pytest.mark.parametrize(
    "question", ["Is <score> shown?", "no </score>?", "is {'average_score': 1} shown?", "is [{'question': 'x'}] right?"]
)
def test_question_that_no_trace_can_answer_is_refused(question: str) -> None:
    with pytest.raises(ValueError, match="not form a valid trace"):
        format_trace("", [Principle(question=question, category=Category.KEEP)], [1], 5.0)
    fault = rules.question_fault(question)
    assert fault is not None and "no trace that repeats the question can be parsed" in fault


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["<score>", "<\\score>", "{", "[{", "'average_score'", '"average_score"', ":", "'question'"]
            ),
            st.text(max_size=4),
        ),
        min_size=1,
        max_size=8,
    ).map("".join)
)
@example("<\\score>")
@example('{"average_score": 1}')
@example("it's \"quoted\" \\ 'twice'")
def test_trace_that_repeats_an_accepted_question_can_be_parsed(question: str) -> None:
    """The rule for questions and the parser of traces must not drift apart."""
    if not question or rules.question_fault(question) is not None:
        return
    principles = [Principle(question=question, category=Category.KEEP)]
    assert parse_trace(format_trace("seen", principles, [1], 5.0), principles).scores == (1,)


def test_question_that_a_tokenizer_would_change_is_refused() -> None:
    fault = rules.question_fault("Is the cafe\u0301 red?")
    assert fault is not None and "normal form C" in fault
    assert rules.text_fault("make the cafe\u0301 red") is None, "an instruction is not repeated word for word"


def test_trace_must_be_readable_by_the_given_parser() -> None:
    principles = (Principle(question="red?", category=Category.KEEP),)
    assert rules.trace_fault(format_trace("seen", principles, [1], 5.0), principles, parse_trace) is None
    fault = rules.trace_fault("seen <score>5</score>", principles, parse_trace)
    assert fault is not None and fault.startswith("the trace cannot be parsed: no average_score")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (png((401, 2)), "401 x 2 pixels, an aspect ratio of 200"),
        (png((2, 500)), "aspect ratio of 250"),
        (png((64, 64))[:90], "damaged"),
        (png((64, 64), kind="JPEG")[:-40], "damaged"),
        (png((64, 64), kind="WEBP")[:-40], "cannot be read"),
        (b"", "empty (0 bytes)"),
        (b"hello", "not an image of an allowed format"),
    ],
)
def test_image_that_the_verifier_cannot_read_is_refused(data: bytes, part: str) -> None:
    fault = rules.image_fault(data)
    assert fault is not None and part in fault


@pytest.mark.parametrize("size", [(1, 1), (400, 2), (3, 600)])
def test_image_that_the_verifier_can_read_is_accepted(size: tuple[int, int]) -> None:
    assert rules.image_fault(png(size)) is None


def test_limits_of_images_are_passed_in() -> None:
    assert "at most 10" in str(rules.image_fault(png(), rules.Limits(max_bytes=10)))
    assert "between 1 and 15 pixels" in str(rules.image_fault(png(), rules.Limits(max_pixels=15)))
    assert "up to an aspect ratio of 3" in str(rules.image_fault(png((8, 2)), rules.Limits(max_aspect_ratio=3)))
    assert rules.length_fault(10, 10) is None
    assert rules.length_fault(7, 10, reserved=4) == (
        "needs 11 tokens (4 of them for the trace), but the limit is 10 (max_length or the model's context); "
        "shorten the text, or lower max_pixels"
    )


def test_limits_of_the_importer_and_of_the_server_agree() -> None:
    server = ServeConfig()
    assert server.max_pixels == rules.MAX_PIXELS
    text = 4 * (4000 + 64 * 600)
    assert 2 * -(-rules.MAX_BYTES // 3) * 4 + text < server.max_body_bytes, "a request has space for two images"


GOOD = (Principle(question="red?", category=Category.KEEP),)
BAD = (*GOOD, Principle(question="is it <score>?", category=Category.KEEP))


def case(instruction: str = "make it red", principles: tuple[Principle, ...] = GOOD, data: bytes = b"") -> EditCase:
    source = EncodedImage(data=data or png())
    return EditCase(case_id="c", source=source, instruction=instruction, principles=principles)


def candidate(name: str = "x", editor: str = "e", data: bytes = b"") -> Candidate:
    return Candidate(candidate_id=name, editor=editor, image=EncodedImage(data=data or png(colour=(9, 9, 9))))


def test_every_field_of_every_data_type_is_checked() -> None:
    def fields(row: object, **settings: bool) -> list[str]:
        return [violation.field for violation in rules.row_violations(row, **settings)]  # type: ignore[arg-type]

    assert fields(case("\0", BAD)) == ["instruction", "principles.1.question"]
    assert fields(case(principles=())) == []
    assert fields(case(principles=()), needs_principles=True) == ["principles"]
    quadruple = Quadruple(case=case("\0"), candidate=candidate(editor="\0"))
    assert fields(quadruple) == ["case.instruction", "candidate.editor"]
    row = SftRow(quadruple=quadruple, trace="\0", agreement=1.5, member="\0")
    assert fields(row) == ["quadruple.case.instruction", "quadruple.candidate.editor", "trace", "agreement", "member"]
    pair = PreferencePair(pair_id="p", case=case("\0", ()), winner=candidate(editor="\0"), loser=candidate(editor="\0"))
    found = ["case.instruction", "case.principles", "winner.editor", "loser.editor", "loser.candidate_id"]
    assert fields(pair, needs_principles=True) == found
    assert "case.principles" not in fields(pair.model_copy(update={"label": "same"}), needs_principles=True)
    image = EncodedImage(data=png())
    assert fields(Item(source=image, edited=image, instruction="\0", principles=BAD)) == [
        "instruction",
        "principles.1.question",
    ]
    assert [place for place, _ in rules.images_of(pair)] == ["case.source", "winner.image", "loser.image"]
    assert [place for place, _ in rules.images_of(row)] == ["quadruple.case.source", "quadruple.candidate.image"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (case("\0"), "row 21: instruction: '\\x00': the text contains the character U+0000"),
        (case(data=png((64, 64))[:90]), "row 21: source: <"),
        (case(data=png((500, 2))), "aspect ratio of 250"),
    ],
)
def test_invalid_row_is_reported_with_file_and_row(tmp_path, bad: EditCase, message: str) -> None:
    path = tmp_path / "cases.parquet"
    write_table(path, [*[case()] * 20, bad, case("\0\0")], EditCase)
    rows = read_valid_rows(path, EditCase)
    assert [next(rows)[0] for _ in range(20)] == list(range(1, 21))
    with pytest.raises(TableError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path}: row 21: ") and message in str(caught.value)
    assert caught.value.exit_code == 3


def test_valid_table_is_counted_and_its_images_are_decoded_once(tmp_path, monkeypatch) -> None:
    image_checker.cache_clear()
    write_table(tmp_path / "cases.parquet", [case()] * 40, EditCase)
    decoded = []
    monkeypatch.setattr(rules, "decode_image", lambda data, **_: decoded.append(data))
    assert check_table(tmp_path / "cases.parquet", EditCase) == 40
    assert check_table(tmp_path / "cases.parquet", EditCase) == 40
    image_checker.cache_clear()
    assert 1 <= len(decoded) <= 16, "rows that are checked at the same time may share an image"


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x9b31mred", "make it\tred\r\n", "to the left \u202e of it"])
def test_other_control_characters_are_allowed(text: str) -> None:
    assert rules.text_fault(text) is None
