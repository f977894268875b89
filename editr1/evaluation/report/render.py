"""The page: one HTML file that loads nothing, drawn from :class:`ReportData`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from editr1.data.images import ImageError
from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import charts, formats
from editr1.evaluation.report.headlines import find_verifier, headlines, ruler
from editr1.evaluation.report.model import EditView, GalleryCase, KeyFigure, PrincipleView, ReportData
from editr1.evaluation.report.pictures import Shown, shown

LABELS = {"Instruction Following": "follow", "Feature Preservation": "keep", "Image Quality": "quality"}


class Row(NamedTuple):
    """A principle with the answers on both edits."""

    question: str
    category: str
    before: PrincipleView | None
    after: PrincipleView | None


def render_report(data: ReportData) -> str:
    """The report as one HTML document.

    Nothing is loaded from outside (a Content-Security-Policy in the page forbids it), all text is escaped, and what
    was not measured says so.
    """
    rows, axis = charts.tracks(data.timeline)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            css=Markup(page_css()),
            headlines=headlines(data),
            sft=find_verifier(data, "sft"),
            rl=find_verifier(data, "rl"),
            tracks=rows,
            axis=axis,
            lineage=charts.lineage_chart(data.nodes, data.edges),
            parents=_parents(data),
        )
    )


def _parents(data: ReportData) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edge in data.edges:
        found.setdefault(edge.child, []).append(edge.parent)
    return found


def _picture(data: bytes) -> Shown | None:
    try:
        return shown(data)
    except ImageError:
        return None


def _principles(case: GalleryCase) -> list[Row]:
    """The questions of a case in order, with both edits' answers beside each other."""
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
    """How many answers the truth confirms, as in "5 of 6 answers right"; empty where it is not known."""
    both = [(p.said, p.truth) for p in edit.principles if p.said is not None and p.truth is not None]
    return f"{sum(a == b for a, b in both)} of {len(both)} answers right" if both else ""


def _figure(figure: KeyFigure) -> str:
    value, unit = figure.value, figure.unit
    if value is None:
        return formats.NOT_MEASURED
    if isinstance(value, str):
        return value + unit
    if isinstance(value, Estimate):
        return formats.estimate(value, digits=figure.digits) + unit
    if 0 < abs(value) < 0.5 * 10.0**-figure.digits:
        return formats.scientific(value) + unit
    return formats.number(value, figure.digits) + unit


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("editr1.evaluation.report")
    environment.filters.update(
        number=formats.number,
        est=formats.estimate,
        span=formats.interval,
        seconds=formats.seconds,
        moment=formats.moment,
        short=formats.short,
        figure=_figure,
        picture=_picture,
        principles=_principles,
        agreement=_agreement,
    )
    environment.globals.update(
        line_chart=charts.line_chart, levels=charts.levels, ruler=ruler, not_measured=formats.NOT_MEASURED
    )
    environment.tests["estimate"] = lambda value: isinstance(value, Estimate)
    return environment


def page_environment(package: str) -> Environment:
    """Jinja over the package's ``templates``: text is escaped, and a name that is not defined is an error."""
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def page_css() -> str:
    """The style sheet, for other pages of the project too."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, "page.css")[0]
