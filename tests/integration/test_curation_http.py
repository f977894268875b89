"""Curation over HTTP with the shapes dataset's labelling server, and with a server that returns scripted failures."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from editr1.config.curate import CurateConfig, MemberConfig, PrincipleCounts
from editr1.config.llm import EndpointConfig
from editr1.curation import prompts
from editr1.curation.errors import CurationError
from editr1.curation.pipeline import curate
from editr1.data.errors import TableError
from editr1.data.tables import read_table, write_table
from editr1.data.types import EditCase, Quadruple, SftRow, Verdict
from editr1.errors import ExitCode
from editr1.llm.errors import EndpointUnavailable
from editr1.llm.messages import build_messages
from editr1.llm.vlm import Usage
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases
from editr1.shapes.labeller_server import labeller_server, serve
from editr1.telemetry import Interrupted, Progress, TrainHooks
from editr1.verifier.trace import parse_trace
from tests.integration.failing_chat_server import FailingChatServer, failing_chat_server

COUNTS = PrincipleCounts(total=(6, 6), follow=(1, 2), keep=(3, 4), quality=(1, 1))
CHAT = build_messages("", ["Task: none"], 64)


@pytest.fixture(scope="module")
def labeller_url() -> Iterator[str]:
    with labeller_server() as url:
        yield url


@pytest.fixture
def failing_server() -> Iterator[FailingChatServer]:
    with failing_chat_server() as server:
        yield server


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tables")
    cases = generate_cases(12, 0, "it")
    rows = [Quadruple(case=case, candidate=item) for case in cases for item in make_candidates(case, 0, 3)]
    write_table(folder / "cases.parquet", cases, EditCase)
    write_table(folder / "candidates.parquet", rows, Quadruple)
    return folder / "cases.parquet", folder / "candidates.parquet"


def config(url: str, **changes) -> CurateConfig:
    return CurateConfig(
        endpoints={"default": EndpointConfig(base_url=url, concurrency=4)}, principles=COUNTS, **changes
    )


def run(settings: CurateConfig, tables: tuple[Path, Path], out: Path, **hooks) -> dict[str, float]:
    return curate(settings, cases=tables[0], candidates=tables[1], out=out, hooks=TrainHooks(**hooks))


@pytest.fixture(scope="module")
def reference(labeller_url: str, tables: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    counts = run(config(labeller_url), tables, out)
    assert (counts["cases"], counts["quadruples"], counts["rows"]) == (12, 36, 36)
    assert (counts["traces"], counts["trace_parse_rate"], counts["cached"]) == (144, 1.0, 0)
    assert counts["agreement"] > 0.8
    assert counts["prompt_tokens"] > counts["requests"]
    (out / "requests").write_text(str(int(counts["requests"])))
    return out


def assert_same_tables(a: Path, b: Path) -> None:
    for name in ("cases.parquet", "rows.parquet"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_rows_are_parsed_traces_in_the_order_of_the_candidates(reference, tables) -> None:
    rows = list(read_table(reference / "rows.parquet", SftRow))
    cases = {case.case_id: case for case in read_table(reference / "cases.parquet", EditCase)}
    quadruples = list(read_table(tables[1], Quadruple))
    assert [row.quadruple.candidate for row in rows] == [row.candidate for row in quadruples]
    for row in rows:
        assert row.quadruple.case == cases[row.quadruple.case.case_id]
        assert len(row.quadruple.case.principles) == 6
        assert isinstance(parse_trace(row.trace, row.quadruple.case.principles), Verdict)
        assert row.member in ("careful", "lenient")


def test_changed_fields_of_requests_repeat_them_and_operational_settings_do_not(labeller_url, tables, tmp_path) -> None:
    def requests(**changes) -> float:
        endpoint = EndpointConfig(base_url=labeller_url, **changes)
        settings = CurateConfig(endpoints={"default": endpoint}, principles=COUNTS, num_traces=1)
        return run(settings, tables, tmp_path)["requests"]

    first = requests()
    assert first > 0
    assert requests(concurrency=3, max_retries=1) == 0
    assert requests(extra_body={"top_k": 5}) == first
    assert requests(omit_parameters=("temperature",)) > 0


def stop_after(items: int) -> Callable[[], bool]:
    """Return a ``should_stop`` that is True from the given item on: it is called once per completed item."""
    calls = itertools.count(1)
    return lambda: next(calls) >= items


@pytest.mark.parametrize("after", [3, 20, 60])
def test_resumed_curation_writes_the_same_tables(labeller_url, tables, reference, tmp_path, after) -> None:
    with pytest.raises(Interrupted):
        run(config(labeller_url), tables, tmp_path, should_stop=stop_after(after))
    counts = run(config(labeller_url), tables, tmp_path)
    # The requests of completed items are not repeated.
    assert 0 < counts["requests"] <= int((reference / "requests").read_text()) - after
    assert_same_tables(tmp_path, reference)


def test_curation_resumed_after_a_kill_writes_the_same_tables(labeller_url, tables, reference, tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from editr1.curation.pipeline import curate;"
        "from editr1.config.curate import CurateConfig;"
        "c, a, b, out = sys.argv[1:];"
        "curate(CurateConfig.model_validate_json(c), cases=Path(a), candidates=Path(b), out=Path(out))"
    )
    command = [sys.executable, "-c", code, config(labeller_url).model_dump_json(), *map(str, tables), str(tmp_path)]
    process = subprocess.Popen(command)
    while process.poll() is None and sum(f.stat().st_size for f in tmp_path.rglob("think.jsonl")) < 2000:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the process was running when it was killed"
    counts = run(config(labeller_url), tables, tmp_path)
    assert 0 < counts["requests"] <= int((reference / "requests").read_text()) - 12, (
        "the decompositions are not requested again"
    )
    assert_same_tables(tmp_path, reference)


def test_counts_of_interrupted_and_resumed_curation_are_those_of_an_uninterrupted_one(
    labeller_url, tables, reference, tmp_path
) -> None:
    given = {"cases": tables[0], "candidates": tables[1], "out": tmp_path, "usage_file": tmp_path / "counts.json"}
    with pytest.raises(Interrupted):
        curate(config(labeller_url), hooks=TrainHooks(should_stop=stop_after(20)), **given)
    part = Usage.load(tmp_path / "counts.json")
    counts = curate(config(labeller_url), **given)
    assert 0 < part.requests < counts["requests"] == int((reference / "requests").read_text())
    assert counts["completion_tokens"] > part.completion_tokens > 0
    assert curate(config(labeller_url), **given)["requests"] == counts["requests"]


def test_repeated_call_sends_no_request_even_without_its_record_files(
    labeller_url, tables, reference, tmp_path
) -> None:
    shutil.copytree(reference, tmp_path / "copy")
    again = run(config(labeller_url), tables, tmp_path / "copy")
    assert (again["requests"], again["cached"]) == (0, 0)
    shutil.rmtree(tmp_path / "copy" / "parts")
    cached = run(config(labeller_url), tables, tmp_path / "copy")
    assert cached["requests"] == 0
    assert cached["cached"] > 12 + 36
    assert_same_tables(tmp_path / "copy", reference)


def test_one_request_per_trace_yields_the_same_rows_as_parameter_n(labeller_url, tables, reference, tmp_path) -> None:
    members = tuple(member.model_copy(update={"send_n": False}) for member in CurateConfig().members)
    counts = run(config(labeller_url, members=members), tables, tmp_path)
    assert counts["requests"] == 12 + 36 * 5
    assert_same_tables(tmp_path, reference)


def test_progress_reaches_the_total_of_every_phase(labeller_url, tables, tmp_path) -> None:
    run(config(labeller_url), tables, tmp_path, progress=Progress(tmp_path / "progress.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    last = {line["phase"]: (line["done"], line["total"]) for line in lines}
    assert last == {"decompose": (12, 12), "think": (36, 36), "verify": (36, 36)}


def test_variant_t_has_no_gold_verdicts(labeller_url, tables, tmp_path) -> None:
    counts = run(config(labeller_url, variant="T"), tables, tmp_path)
    rows = list(read_table(tmp_path / "rows.parquet", SftRow))
    assert counts["rows"] == 36
    assert "agreement" not in counts
    assert all(row.agreement is None for row in rows)


def test_variant_v_has_gold_verdicts_without_reasoning(labeller_url, tables, tmp_path) -> None:
    counts = run(config(labeller_url, variant="V"), tables, tmp_path)
    assert counts["requests"] == 12 + 36
    for row in read_table(tmp_path / "rows.parquet", SftRow):
        verdict = parse_trace(row.trace, row.quadruple.case.principles)
        assert isinstance(verdict, Verdict)
        assert verdict.reasoning == ""
        assert verdict.score == pytest.approx(10 * sum(verdict.scores) / 6, abs=0.051)


def test_holistic_variant_has_two_questions_per_case(labeller_url, tables, tmp_path) -> None:
    counts = run(config(labeller_url, variant="holistic"), tables, tmp_path)
    assert (counts["rows"], counts["cases"]) == (36, 12)
    for row in read_table(tmp_path / "rows.parquet", SftRow):
        assert len(row.quadruple.case.principles) == 2
        assert isinstance(parse_trace(row.trace, row.quadruple.case.principles), Verdict)


def test_half_of_the_chosen_cases_are_rated_hard(labeller_url, tables, tmp_path) -> None:
    counts = run(config(labeller_url, num_labelled_cases=6), tables, tmp_path)
    labelled = {r.quadruple.case.case_id: r.quadruple.case for r in read_table(tmp_path / "rows.parquet", SftRow)}
    assert (len(labelled), counts["rows"]) == (6, 18)
    assert sum(case.instruction.startswith(("move", "add")) for case in labelled.values()) >= 3


def test_cases_not_chosen_for_labelling_still_get_principles(labeller_url, tables, tmp_path) -> None:
    few = tmp_path / "few.parquet"
    rows = list(read_table(tables[1], Quadruple))
    names = sorted({row.case.case_id for row in rows})[:4]
    write_table(few, (row for row in rows if row.case.case_id in names), Quadruple)
    counts = curate(
        config(labeller_url, num_labelled_cases=2, hard_fraction=0.0), cases=tables[0], candidates=few, out=tmp_path
    )
    assert (counts["cases"], counts["rows"]) == (12, 6)
    assert {r.quadruple.case.case_id for r in read_table(tmp_path / "rows.parquet", SftRow)} <= set(names)


def test_without_candidates_only_the_chosen_cases_are_decomposed(labeller_url, tables, tmp_path) -> None:
    assert (
        curate(config(labeller_url, num_labelled_cases=6), cases=tables[0], candidates=None, out=tmp_path)["cases"] == 6
    )


def test_without_candidates_no_rows_are_written(labeller_url, tables, tmp_path) -> None:
    counts = curate(config(labeller_url), cases=tables[0], candidates=None, out=tmp_path)
    assert counts["cases"] == counts["requests"] == 12
    assert not (tmp_path / "rows.parquet").exists()


def test_curation_fails_if_no_case_has_the_required_number_of_principles(labeller_url, tables, tmp_path) -> None:
    paper_counts = config(labeller_url).model_copy(update={"principles": PrincipleCounts()})
    message = (
        r"decompose: 12 of 12 items failed \(UnreadableAnswer: 12\)\. The first failure: model shapes-oracle: "
        r"the answer has 6 principles \(total\), but the setting principles\.total allows 10 to 10"
    )
    with pytest.raises(CurationError, match=message):
        run(paper_counts, tables, tmp_path)


# The labelling server of the shapes dataset


def complete(url: str, **body) -> httpx.Response:
    return httpx.post(f"{url}/chat/completions", json=body)


def test_labelling_server_is_deterministic_per_seed_and_supports_parameter_n(labeller_url) -> None:
    (case,) = generate_cases(1, 3, "o", with_principles=True)
    image = make_candidates(case, 0, 1)[0].image
    chat = build_messages(*prompts.think(case, image, case.principles), 64)
    four = complete(labeller_url, model="careful", messages=chat, n=4, seed=7, temperature=1.0).json()
    one = complete(labeller_url, model="careful", messages=chat, seed=9, temperature=1.0).json()
    texts = [choice["message"]["content"] for choice in four["choices"]]
    assert texts[2] == one["choices"][0]["message"]["content"]
    assert len(set(texts)) > 1
    assert four["usage"]["total_tokens"] == four["usage"]["prompt_tokens"] + four["usage"]["completion_tokens"]
    models = [item["id"] for item in httpx.get(f"{labeller_url}/models").json()["data"]]
    assert models[0] == "shapes-oracle"
    assert "careful" in models


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"model": "gpt"}, 404, "model: 'gpt' does not exist; use one of"),
        ({"n": 0}, 400, "n: 0 must be a number from 1"),
        ({"seed": "x"}, 400, "seed: 'x'"),
        ({"stream": True}, 400, "streaming is not supported"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "hello"}]}, 400, "Task: decompose"),
        (
            {"messages": [{"role": "user", "content": "Task: judge\n<instruction>\nmake it so\n</instruction>"}]},
            400,
            "but the messages contain 0",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
                ]
            },
            400,
            "other URLs are not fetched",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}],
                    }
                ]
            },
            400,
            "not an image",
        ),
    ],
)
def test_labelling_server_explains_invalid_requests(labeller_url, change, status, reason) -> None:
    got = complete(labeller_url, **({"model": "careful", "messages": CHAT} | change))
    assert got.status_code == status
    assert reason in got.json()["error"]["message"]


def test_labelling_server_rejects_unknown_instructions(labeller_url) -> None:
    (case,) = generate_cases(1, 3, "o")
    other = case.model_copy(update={"instruction": "paint it like Monet"})
    got = complete(labeller_url, model="shapes-oracle", messages=build_messages(*prompts.difficulty(other), 64))
    assert got.status_code == 400
    assert "paint it like Monet" in got.json()["error"]["message"]


def test_labelling_server_does_not_listen_on_all_interfaces_by_default() -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0"):
        serve("0.0.0.0", 0)


def test_outage_is_reported_as_unavailable(tables, tmp_path) -> None:
    settings = config("http://127.0.0.1:9/v1")
    settings.endpoints["default"] = EndpointConfig(base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(
        EndpointUnavailable, match="decompose: 12 of 12 items failed, because no request received a response"
    ):
        run(settings, tables, tmp_path)


def test_two_unanswered_items_are_not_an_outage(failing_server, tables, tmp_path) -> None:
    few = tmp_path / "few.parquet"
    write_table(few, list(read_table(tables[0], EditCase))[:2], EditCase)
    failing_server.script = [503] * 4
    settings = config(failing_server.url)
    settings.endpoints["default"] = EndpointConfig(base_url=failing_server.url, max_retries=0)
    with pytest.raises(CurationError, match=r"no case has principles.*2 of 2 items failed.*status 503") as raised:
        curate(settings, cases=few, candidates=None, out=tmp_path)
    assert not isinstance(raised.value, EndpointUnavailable)


def test_candidate_whose_case_differs_is_reported_before_any_request(tables, tmp_path) -> None:
    rows = list(read_table(tables[1], Quadruple))
    other = rows[4].case.model_copy(update={"instruction": "make everything blue"})
    rows[4] = rows[4].model_copy(update={"case": other})
    write_table(tmp_path / "candidates.parquet", rows, Quadruple)
    with pytest.raises(TableError, match=r"candidates\.parquet: row 5: case: .*a different instruction or image"):
        curate(
            config("http://127.0.0.1:9/v1"), cases=tables[0], candidates=tmp_path / "candidates.parquet", out=tmp_path
        )


def test_curation_stops_when_too_many_items_fail(failing_server, tables, tmp_path) -> None:
    failing_server.script = [400] * 100
    settings = config(failing_server.url, max_failed_fraction=0.5)
    many = [
        case.model_copy(update={"case_id": f"{case.case_id}-{n}"})
        for n in range(3)
        for case in generate_cases(12, 0, "f")
    ]
    write_table(tmp_path / "cases.parquet", many, EditCase)
    with pytest.raises(
        CurationError, match=r"20 of 2\d items failed, which is more than the setting max_failed_fraction \(0\.5\)"
    ):
        curate(settings, cases=tmp_path / "cases.parquet", candidates=None, out=tmp_path)


def test_failed_items_are_counted_and_completed_by_the_next_call(
    labeller_url, failing_server, tables, reference, tmp_path
) -> None:
    failing_server.script = [503] * 1000
    members = CurateConfig().members
    endpoints = config(labeller_url).endpoints | {"other": EndpointConfig(base_url=failing_server.url, max_retries=0)}
    half = config(labeller_url).model_copy(
        update={
            "endpoints": endpoints,
            "max_failed_fraction": 1.0,
            "members": (MemberConfig(**(members[0].model_dump() | {"endpoint": "other"})), members[1]),
        }
    )
    counts = run(half, tables, tmp_path)
    assert counts["failed: think: EndpointUnavailable"] > 0
    assert counts["rows"] + counts["dropped: no trace parsed"] == 36
    endpoints["other"] = EndpointConfig(base_url=labeller_url)
    counts = run(half.model_copy(update={"endpoints": endpoints}), tables, tmp_path)
    assert counts["rows"] == 36
    assert_same_tables(tmp_path, reference)


def test_answers_that_were_unreadable_are_requested_again_after_a_repair(
    labeller_url, failing_server, tables, reference, tmp_path
) -> None:
    broken = config(failing_server.url)
    with pytest.raises(CurationError, match="decompose: 12 of 12 items failed") as raised:
        run(broken, tables, tmp_path)
    assert "The first failure: model shapes-oracle: the answer contains no '['" in str(raised.value)
    assert run(config(labeller_url), tables, tmp_path)["rows"] == 36
    assert_same_tables(tmp_path, reference)


def test_model_whose_traces_were_unreadable_is_asked_again_after_a_repair(
    labeller_url, failing_server, tables, reference, tmp_path
) -> None:
    members = CurateConfig().members
    endpoints = config(labeller_url).endpoints | {"other": EndpointConfig(base_url=failing_server.url)}
    settings = config(labeller_url).model_copy(
        update={
            "endpoints": endpoints,
            "max_failed_fraction": 1.0,
            "members": (MemberConfig(**(members[0].model_dump() | {"endpoint": "other"})), members[1]),
        }
    )
    counts = run(settings, tables, tmp_path)
    assert counts["failed: think: model without a parsed trace"] > 0
    assert counts["rows"] + counts.get("failed: think: UnreadableAnswer", 0.0) == 36
    endpoints["other"] = EndpointConfig(base_url=labeller_url)
    repaired = run(settings.model_copy(update={"endpoints": endpoints}), tables, tmp_path)
    assert repaired["rows"] == 36 and not any(name.startswith("failed") for name in repaired)
    again = run(settings.model_copy(update={"endpoints": endpoints}), tables, tmp_path)
    assert again["requests"] == 0


@pytest.mark.parametrize("num_cases", [2, 4])
def test_last_line_quotes_why_the_server_refused_every_request(failing_server, tables, tmp_path, num_cases) -> None:
    few = tmp_path / "few.parquet"
    write_table(few, list(read_table(tables[0], EditCase))[:num_cases], EditCase)
    failing_server.script = [400] * num_cases
    with pytest.raises(CurationError, match=rf"{num_cases} of {num_cases} items failed.*status 400: .*no!") as raised:
        curate(config(failing_server.url), cases=few, candidates=None, out=tmp_path)
    assert raised.value.exit_code == ExitCode.CONFIG


def test_labelling_server_stops_with_its_context() -> None:
    with labeller_server() as url:
        assert httpx.get(url.removesuffix("/v1") + "/healthz").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url.removesuffix("/v1") + "/healthz")
