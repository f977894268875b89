"""Render :class:`ReportData` as one self-contained HTML file."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from editr1.data.images import ImageError
from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import charts, formats
from editr1.evaluation.report.headlines import TRUE_SCORE, ceiling, find_verifier, headlines, ruler
from editr1.evaluation.report.images import EmbeddedImage, embedded_image
from editr1.evaluation.report.lineage import lineage_chart
from editr1.evaluation.report.model import EditView, GalleryCase, PrincipleView, ReportData, StageMetric

LABELS = {"Instruction Following": "follow", "Feature Preservation": "keep", "Image Quality": "quality"}


class Row(NamedTuple):
    """A principle and the answers to it: ``before`` for the edit before RL, and ``after`` for the edit after RL."""

    question: str
    category: str
    before: PrincipleView | None
    after: PrincipleView | None


def render_report(data: ReportData) -> str:
    """Render the report as one HTML document.

    The page loads no other resources (its Content-Security-Policy forbids it), and all text is escaped. Metrics that
    were not measured are shown as "not measured".
    """
    rows, axis = charts.timeline_tracks(data.timeline)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            css=Markup(page_css()),
            headlines=headlines(data),
            ceiling=ceiling(data),
            true_score=TRUE_SCORE,
            sft=find_verifier(data, "sft"),
            rl=find_verifier(data, "rl"),
            tracks=rows,
            axis=axis,
            lineage=lineage_chart(data.nodes, data.edges),
            parents=_parents(data),
        )
    )


def _parents(data: ReportData) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edge in data.edges:
        found.setdefault(edge.child, []).append(edge.parent)
    return found


def _image(data: bytes) -> EmbeddedImage | None:
    try:
        return embedded_image(data)
    except ImageError:
        return None


def _principles(case: GalleryCase) -> list[Row]:
    """Return one row per principle of a case, in order."""
    found: dict[str, dict[str, PrincipleView]] = {}
    for side, edit in (("before", case.before), ("after", case.after)):
        for item in edit.principles if edit else ():
            found.setdefault(item.question, {})[side] = item
    return [
        Row(question, LABELS.get(any_of.category, any_of.category), sides.get("before"), sides.get("after"))
        for question, sides in found.items()
        for any_of in [next(iter(sides.values()))]
    ]


def _agreement(edit: EditView) -> str:
    """Return how many of the verifier's answers are correct, such as "5 of 6 answers correct".

    Return an empty string if no ground-truth answer is known.
    """
    both = [(p.verdict, p.truth) for p in edit.principles if p.verdict is not None and p.truth is not None]
    return f"{sum(a == b for a, b in both)} of {len(both)} answers correct" if both else ""


def _metric(metric: StageMetric) -> str:
    value, unit = metric.value, metric.unit
    if value is None:
        return formats.NOT_MEASURED
    if isinstance(value, str):
        return value + unit
    if isinstance(value, Estimate):
        return formats.estimate(value, digits=metric.digits, signed=metric.signed) + unit
    if 0 < abs(value) < 0.5 * 10.0**-metric.digits:
        return formats.scientific(value) + unit
    return formats.number(value, metric.digits) + unit


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("editr1.evaluation.report")
    environment.filters.update(
        number=formats.number,
        est=formats.estimate,
        span=formats.interval,
        count=formats.count,
        seconds=formats.seconds,
        moment=formats.moment,
        short=formats.short,
        metric=_metric,
        image=_image,
        principles=_principles,
        agreement=_agreement,
    )
    environment.globals.update(
        line_chart=charts.line_chart,
        constant_value=charts.constant_value,
        ruler=ruler,
        not_measured=formats.NOT_MEASURED,
    )
    environment.tests["varying"] = lambda points: charts.constant_value(points) is None
    environment.tests["estimate"] = lambda value: isinstance(value, Estimate)
    return environment


def page_environment(package: str) -> Environment:
    """Return a Jinja environment with the templates in the folder ``templates`` of ``package``.

    The environment escapes text and rejects undefined names.
    """
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def page_css() -> str:
    """Return the style sheet of the report. The result page of ``editr1 reproduce`` also uses it."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, "page.css")[0]
