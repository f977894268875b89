"""The report page is valid and self-contained, marks metrics that were not measured, and escapes all data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import (
    EditView,
    GalleryCase,
    LineageEdge,
    LineageNode,
    PrincipleView,
    ReportData,
    StageCurve,
    StageMetric,
    StageReport,
    TimeSpan,
    charts,
    formats,
    read_spans,
    render_report,
)
from editr1.evaluation.report.headlines import TRUE_SCORE, headlines
from editr1.evaluation.report.lineage import BOX_HEIGHT, BOX_WIDTH, lineage_chart

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}&amp;</style>"


class Page(HTMLParser):
    """Parser that collects the tags of a page and fails on tags that are not nested correctly."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> has no start tag"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def words(html: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Page(html).text))


@pytest.fixture(scope="module", params=["shapes", "photos", "started"])
def html(request, report_of) -> str:
    kinds = {"shapes": {}, "photos": {"truth": False, "name": "photos"}, "started": {"measured": False}}
    return render_report(report_of(**kinds[request.param]))


def test_page_and_charts_are_well_formed(html):
    Page(html)
    assert html.lstrip().startswith("<!doctype html>")
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(svg)


def test_page_loads_no_resources_and_runs_no_scripts(html):
    page = Page(html)
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "form", "base"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"src", "srcset", "href", "xlink:href", "poster", "action", "background"}:
                assert (value or "").startswith(("data:image/", "#")), f"{name}={value}"
    assert "@import" not in html
    assert "url(" not in html
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy


def test_page_is_accessible_to_screen_readers(html):
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en"
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.all("svg"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert len(page.all("h1")) == 1
    targets = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    assert {(link["href"] or "")[1:] for link in page.all("a")} <= targets


def test_text_has_sufficient_contrast_in_both_themes():
    css = (Path(charts.__file__).parent / "templates" / "page.css").read_text()

    def luminance(hexed: str) -> float:
        channels = [int(hexed[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(themes) == 3
    for theme in themes[:2]:
        pairs = [(text, ground) for text in ("ink", "soft", "before", "after", "bad") for ground in ("paper", "card")]
        for text, ground in [*pairs, ("bad", "bad-wash")]:
            high, low = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_headlines_describe_their_intervals(report):
    page = words(render_report(report))
    sft, gain, editor = headlines(report)
    assert [h.verdict for h in (sft, gain, editor)] == ["clear", "clear", "clear"]
    assert report.verifiers[0].accuracy is not None and report.editor is not None
    assert sft.value == f"{100 * report.verifiers[0].accuracy.half_credit.value:.1f}"
    assert "The confidence interval is entirely above chance (50%)." in page
    assert page.count("The confidence interval is entirely above zero.") == 2
    assert f"n = {formats.number(1000)}" in page


def _estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=50)


def test_interval_that_includes_zero_is_reported_as_no_significant_effect(report):
    gain = report.verifier_gain.model_copy(update={"half_credit": _estimate(0.01, -0.02, 0.04)})
    parts = report.editor.gain.model_copy(update={"score": _estimate(-1.0, -1.5, -0.5)})
    editor = report.editor.model_copy(update={"gain": parts})
    data = report.model_copy(update={"verifier_gain": gain, "editor": editor})
    assert [h.verdict for h in headlines(data)] == ["clear", "open", "worse"]
    page = words(render_report(data))
    assert "The confidence interval includes zero: no significant effect." in page
    assert "The confidence interval is entirely below zero." in page
    assert "\u22121.00" in page


def test_missing_metrics_are_shown_as_not_measured(report_of):
    page = words(render_report(report_of(measured=False)))
    assert page.count("not measured") >= 6
    assert "%" not in page.split("Reproduce this run")[0].replace("50%", "")


def test_page_without_ground_truth_shows_no_true_scores(report_of):
    page = words(render_report(report_of(truth=False, name="photos")))
    assert "There is no ground truth for these images, so no metric" in page
    assert "There is no ground truth for these images. The verifier's scores" in page
    assert "the scores of the verifier that also trained the editor" in page
    assert "True score" not in page
    assert "GSB" not in page
    assert not re.search(r"true score: \d", page)


def test_gsb_is_shown(report):
    gsb = report.editor.gsb
    assert f"GSB (better minus worse after RL), % {gsb.value * 100:+.1f}" in words(render_report(report))


def test_wrong_verdict_is_marked_in_words(report):
    html = render_report(report)
    assert html.count("The verifier's answer is wrong") == 1
    assert ", wrong" in words(html)


def _poisoned(value):
    """Return the data with hostile markup in place of every string and in every key."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {f"{key}{HOSTILE}": _poisoned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_poisoned(item) for item in value]
    return value


ENUM_FIELDS = {"truth", "protocol", "judge", "role", "category", "verdicts"}


def _poison_model(value):
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            if key in ENUM_FIELDS:
                found[key] = item
            elif key in {"versions", "inputs", "outputs"}:
                found[key] = _poisoned(item)
            else:
                found[key] = _poison_model(item)
        return found
    if isinstance(value, list | tuple):
        return [_poison_model(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_markup_in_the_data_is_escaped(report):
    data = report.model_copy(update={"notes": ("a note",)}).model_dump()
    html = render_report(ReportData.model_validate(_poison_model(data)))
    page = Page(html)
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert len(page.all("img")) == 9
    assert all(not any(name.startswith("on") for name in attrs) for _, attrs in page.tags)
    assert HOSTILE in "".join(page.text)
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(svg)


def test_unreadable_image_is_replaced_by_a_message(report):
    broken = GalleryCase(case_id="x", instruction="y", source=b"no image", after=EditView(image=b"\x89PNG"))
    page = words(render_report(report.model_copy(update={"gallery": (broken,)})))
    assert page.count("This image cannot be read.") == 2


def test_small_images_are_pixelated_and_large_ones_downscaled(report_of):
    small, large = render_report(report_of()), render_report(report_of(truth=False))
    assert all(image.get("class") == "pixelated" for image in Page(small).all("img"))
    images = Page(large).all("img")
    assert images and all("class" not in image and int(image["width"] or 0) == 720 for image in images)
    assert len(large) < 3_000_000


def test_report_data_survives_a_json_round_trip(report):
    stage = StageReport(
        name="s",
        kind="sft",
        description="w",
        state="done",
        curves=(StageCurve(name="loss", points=((0.0, 1.0), (1.0, float("nan")))),),
    )
    data = report.model_copy(update={"stages": (stage,)})
    stored = data.model_dump_json()
    back = ReportData.model_validate_json(stored)
    assert '"judge":"truth"' in stored and '"said":1' in stored, "the names of stored fields must not change"
    assert back.gallery == data.gallery
    assert render_report(back) == render_report(data)


def test_constant_curve_is_listed_as_text_and_not_drawn(report):
    curves = (
        StageCurve(name="failed", points=((0.0, 0.0), (1.0, 0.0)), phase="think"),
        StageCurve(name="loss", points=((0.0, 2.0), (1.0, 1.0))),
        StageCurve(name="ratio", points=((0.0, 1.0), (1.0, 1.0)), unit="%"),
    )
    stage = report.stages[0].model_copy(update={"curves": curves})
    page = render_report(report.model_copy(update={"stages": (stage,)}))
    assert "Constant: failed 0 (think), ratio 1 %" in page
    assert [name in page for name in ("<figcaption>loss", "<figcaption>failed", "<figcaption>ratio")] == [
        True,
        False,
        False,
    ]


def test_axis_of_tiny_values_has_distinct_tick_labels():
    svg = charts.line_chart("loss", [(0, -2e-9), (1, 4.5e-8)])
    assert re.findall(r'text-anchor="end">([^<]*)<', svg) == [
        "\u22122e\u221208",
        "0",
        "2e\u221208",
        "4e\u221208",
        "6e\u221208",
    ]


def test_curve_without_finite_values_is_not_drawn():
    assert charts.line_chart("loss", [(0, float("nan"))]) == ""
    assert charts.line_chart("loss", []) == ""
    ET.fromstring(charts.line_chart("loss", [(5, 2.0)]))
    gap = charts.line_chart("loss", [(0, 1.0), (1, float("inf")), (2, 3.0)])
    assert re.search(r'class="curve" d="M[^M]+M', gap)


def test_long_curve_is_thinned_to_values_of_the_curve_that_keep_its_extremes():
    points = [(float(i), 5.0) for i in range(100_000)]
    points[777] = (777.0, 9.0)
    points[50_001] = (50_001.0, 1.0)
    svg = charts.line_chart("loss", points)
    assert len(svg) < 40_000
    assert "from 5.0" in svg
    path = re.search(r'd="([^"]*)"', svg)
    assert path is not None
    heights = [float(y) for y in re.findall(r",([0-9.]+)", path[1])]
    level = [float(y) for y in re.findall(r",([0-9.]+)", charts.line_chart("loss", [(0, 1.0), (1, 5.0), (2, 9.0)]))][:3]
    assert {min(heights), max(heights)} == {min(level), max(level)}, "the extreme values are drawn as they are"
    assert set(heights) == set(level), "no value is an average"


def test_fluctuating_curve_has_its_raw_values_and_a_labelled_running_mean():
    noisy = [(float(i), float(i % 2)) for i in range(100)]
    svg = charts.line_chart("loss", noisy)
    assert svg.count('class="raw"') == 1 and svg.count('class="curve"') == 1
    assert "thick: running mean of 9" in svg
    raw = re.search(r'class="raw" d="([^"]*)"', svg)
    assert raw is not None and len(re.findall(r"[ML]", raw[1])) == 100
    smooth = charts.line_chart("learning rate", [(float(i), i / 100) for i in range(100)])
    assert 'class="raw"' not in smooth and "running mean" not in smooth


def test_every_interval_on_the_page_has_its_sample_size(html):
    cells = re.findall(r'<td class="num">(.*?)</td>', html, re.DOTALL)
    intervals = [cell for cell in cells if " to " in cell]
    assert all(re.search(r'to [^<]*</span><span class="small">n = [0-9]', cell) for cell in intervals)
    for match in re.finditer(r"interval [^<;]* to [^<;]*", html):
        assert "n = " in match[0]


def test_interval_without_width_has_its_sample_size(report):
    page = words(render_report(report))
    assert "100.0 100.0 to 100.0 n = 2000" in page


def test_groups_that_are_resampled_together_are_counted(report):
    accuracy = report.verifiers[0].accuracy
    assert accuracy is not None
    grouped = accuracy.model_copy(update={"ties": accuracy.ties.model_copy(update={"groups": 977})})
    verifier = report.verifiers[0].model_copy(update={"accuracy": grouped})
    page = words(render_report(report.model_copy(update={"verifiers": (verifier,)})))
    assert "n = 1000 in 977 groups" in page
    assert "Items that share a source image form a group and are resampled together" in page


def test_page_says_that_preferences_are_simulated_and_draws_the_ceiling(report, report_of):
    html = render_report(report)
    page = words(html)
    assert "The preferences are simulated" in page
    assert "5 % of the preferences are flipped at random" in page
    assert "the ground truth agrees with 93.8 % (" in page
    assert "agree with the simulated preferences?" in page
    assert html.count('<i class="mark ceiling" style="left:95.0%">') == 5, "one card and four rows of the chart"
    photos = render_report(report_of(truth=False))
    assert "simulated" not in photos and '"mark ceiling"' not in photos
    assert "agree with human preferences?" in words(photos)


def test_chance_is_drawn_only_where_ties_count_half(report):
    html = render_report(report)
    for label, drawn in (("half credit", True), ("strict", False)):
        for row in re.findall(rf"RRM, {label}</span>(.*?)</b>", html, re.DOTALL):
            assert ('<i class="mark" style="left:50.0%">' in row) == drawn


def test_true_score_is_defined_with_that_of_an_editor_that_does_nothing(report):
    page = words(render_report(report))
    assert page.count(TRUE_SCORE) == 2, "in the sections with the examples and with the editor"
    assert "An editor that does nothing, and returns the source image, gets 4.00 (4.00 to 4.00, n = 1000)." in page


def test_definition_of_the_true_score_is_that_of_the_rubric():
    from editr1.shapes.truth import rubric

    assert (rubric(1.0, 0, 1), rubric(1.0, 1, 1), rubric(1.0, 0, 0), rubric(0.0, 0, 1)) == (10.0, 8.5, 8.0, 4.0)


def test_cards_say_that_seeds_differ(report, report_of):
    sft, gain, editor = headlines(report)
    for card, points in ((sft, "1.0"), (gain, "2.2")):
        assert card.caveat == (
            "The interval describes the variation over the pairs for one training run. Between three seeds of the quickstart,"
            f" the value's standard deviation was {points} points (docs/reproduction.md)."
        )
    assert editor.caveat.startswith(
        "The interval describes the variation over the cases for one training run. The interval does not"
    )
    assert all("points" not in card.caveat for card in headlines(report_of(truth=False)))


def test_failed_pairs_and_causes_are_shown(report):
    accuracy = report.verifiers[0].accuracy
    assert accuracy is not None
    update = {"failed": 51, "strict_with_failed": accuracy.strict, "half_credit_with_failed": accuracy.half_credit}
    update = {
        "accuracy": accuracy.model_copy(update=update),
        "num_edits": 2102,
        "failures": {"unparsed": 50, "engine": 4},
    }
    verifier = report.verifiers[0].model_copy(update={**update, "first_failure": "no <score> tag"})
    page = words(render_report(report.model_copy(update={"verifiers": (verifier,)})))
    assert "51 of 1051" in page
    assert "SFT-RRM, failed pairs counted as wrong" in page
    assert "SFT-RRM: 54 of 2102 edits have no score (unparsed: 50, engine: 4)." in page
    assert "The first: no <score> tag" in page
    none = report.verifiers[0].model_copy(update={"accuracy": None, "num_pairs": 7})
    page = words(render_report(report.model_copy(update={"verifiers": (none,)})))
    assert "SFT-RRM: accuracy not measured, because none of 7 pairs has scores of both edits." in page


def _points(path: str) -> list[tuple[float, float]]:
    """Return points along an SVG path of absolute M, L and C commands."""
    found: list[tuple[float, float]] = []
    for command, text in re.findall(r"([MLC])([^MLC]*)", path):
        numbers = [float(n) for n in re.findall(r"-?[0-9.]+", text)]
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            found.append(corners[0])
            continue
        (x0, y0), (x3, y3) = found[-1], corners[-1]
        (x1, y1), (x2, y2) = corners[:2] if command == "C" else ((x0, y0), (x3, y3))
        for t in (i / 50 for i in range(1, 51)):
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            found.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return found


def test_lineage_edges_do_not_pass_behind_other_boxes():
    names = (
        "verifier",
        "editor",
        "rows",
        "pairs",
        "cases",
        "pairs-test",
        "cases-test",
        "sft",
        "gcpo",
        "grpo",
        "evaluation",
    )
    ids = {name: f"sha256:{i:064x}" for i, name in enumerate(names)}
    links = ["verifier sft", "rows sft", "sft gcpo", "pairs gcpo", "gcpo grpo", "editor grpo", "cases grpo"]
    links += [f"{name} evaluation" for name in ("pairs-test", "cases-test", "sft", "gcpo", "editor", "grpo")]
    edges = [LineageEdge(parent=ids[a], child=ids[b]) for a, b in (link.split() for link in links)]
    svg = ET.fromstring(lineage_chart([LineageNode(digest=d, label=n) for n, d in ids.items()], edges))
    boxes = [(float(r.attrib["x"]), float(r.attrib["y"])) for r in svg.iter("rect")]
    paths = [_points(path.attrib["d"]) for path in svg.iter("path")]
    assert (len(boxes), len(paths)) == (len(names), len(links))
    for path in paths:
        for x, y in path:
            inside = [(bx, by) for bx, by in boxes if bx < x - 0.1 < bx + BOX_WIDTH - 0.2 and by < y < by + BOX_HEIGHT]
            assert not inside, (x, y, inside)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.0, 10.0, [0.0, 5.0, 10.0]),
        (3.2, 4.1, [3.0, 3.5, 4.0, 4.5]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert charts.nice_ticks(low, high, 4) == pytest.approx(expected)


def test_timeline_positions_are_percentages_and_overlaps_count_once():
    spans = [
        TimeSpan(name="sft", stage="sft", start=100.0, end=150.0),
        TimeSpan(name="train", stage="sft", start=110.0, end=150.0, level=1),
        TimeSpan(name="serve", stage="serve", start=150.0, end=300.0, ok=False),
    ]
    rows, axis = charts.timeline_tracks(spans)
    assert [row.stage for row in rows] == ["sft", "serve"]
    assert (rows[0].bars[0].left, rows[0].bars[0].width) == (0.0, 25.0)
    assert (rows[0].bars[1].left, rows[0].bars[1].width) == (5.0, 20.0)
    assert rows[0].duration == "50 s"
    assert rows[1].bars[0].title.endswith("failed")
    assert axis[0] == (0.0, "0 min")


def test_lineage_places_artifacts_right_of_their_parents():
    nodes = [LineageNode(digest=f"sha256:{c * 64}", label=c) for c in "abcd"]
    ids = {n.label: n.digest for n in nodes}
    edges = [LineageEdge(parent=ids[a], child=ids[b]) for a, b in ("ab", "bc", "ac", "cd")]
    svg = ET.fromstring(lineage_chart(nodes, edges))
    left = [float(r.attrib["x"]) for r in svg.iter("rect")]
    assert left == sorted(left) and len(set(left)) == 4
    cycle = [
        *edges,
        LineageEdge(parent=ids["d"], child=ids["a"]),
        LineageEdge(parent=ids["a"], child="sha256:unknown"),
    ]
    ET.fromstring(lineage_chart(nodes, cycle))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.4 s"), (38.2, "38 s"), (59.7, "1 min 00 s"), (245.0, "4 min 05 s"), (7800.0, "2 h 10 min")],
)
def test_durations_are_formatted_with_units(value, text):
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1234.5, 1, "1234.5"), (12345, 2, "12\u202f345"), (-0.5, 2, "\u22120.50"), (None, 2, "not measured"),
     (float("nan"), 2, "not measured")],
)  # fmt: skip
def test_numbers_have_typographic_minus_signs(value, digits, text):
    assert formats.number(value, digits) == text


def test_spans_are_read_and_truncated_lines_skipped(tmp_path):
    lines = [
        '{"name":"editr1.stage","service":"sft","start":1.0,"end":9.0,"ok":true,"attributes":{}}',
        '{"name":"editr1.phase","service":"sft","start":2.0,"end":8.0,"ok":true,"attributes":{"phase":"train"}}',
        '{"name":"editr1.step","service":"sft","start":2.0,"end":3.0,"ok":true,"attributes":{}}',
        '{"name":"editr1.stage","service":"x","start":9.0,"end":10.0,"ok":false,"attributes":{"stage":"gcpo"}}',
        '{"name":"editr1.stage","servi',
        "null",
    ]
    (tmp_path / "spans.jsonl").write_text("\n".join(lines))
    spans = read_spans([tmp_path / "spans.jsonl", tmp_path / "absent.jsonl"])
    assert [(b.name, b.stage, b.level, b.ok) for b in spans] == [
        ("sft", "sft", 0, True),
        ("train", "sft", 1, True),
        ("gcpo", "gcpo", 0, False),
    ]


def test_each_question_has_one_row_for_both_edits(report):
    other = PrincipleView(question="only after?", category="Image Quality", verdict=1, truth=0)
    case = report.gallery[0]
    after = case.after.model_copy(update={"principles": (*case.after.principles, other)})
    html = render_report(report.model_copy(update={"gallery": (case.model_copy(update={"after": after}),)}))
    assert words(html).count("only after?") == 1
    assert html.count("The verifier's answer is wrong") == 1


def test_stage_metrics_show_text_numbers_and_estimates(report):
    metrics = (
        StageMetric(name="note", value="three editors"),
        StageMetric(name="rows", value=6000),
        StageMetric(name="loss", value=0.25, digits=3, unit=" nats"),
        StageMetric(name="rate", value=-9e-6, digits=3),
        StageMetric(name="gain", value=_estimate(1.5, 1.0, 2.0)),
        StageMetric(name="lost"),
    )
    stage = StageReport(name="s", kind="sft", description="w", state="failed", metrics=metrics, attempts=2)
    page = words(render_report(report.model_copy(update={"stages": (stage,)})))
    for text in (
        "three editors",
        "6000",
        "0.250 nats",
        "\u22129.0e\u221206",
        "1.50",
        "1.00 to 2.00, n = 50",
        "attempt 2",
    ):
        assert text in page
