"""The diagrams of the architecture match the import contract and are rendered from their current sources."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DIAGRAMS = sorted((ROOT / "docs/diagrams").glob("*.mmd"))


def _contract() -> list[set[str]]:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [{name.strip().removeprefix("editr1.") for name in layer.split("|")} for layer in contract["layers"]]


def _drawn_layers() -> list[set[str]]:
    """Return the layers of the package diagram from top to bottom, parsed from its arrows ``a & b --> c``."""
    lines = (ROOT / "docs/diagrams/packages.mmd").read_text().splitlines()
    arrows = [line.split("-->") for line in lines if "-->" in line]
    sides = [[{name.strip() for name in side.split("&")} for side in arrow] for arrow in arrows]
    layers = [sides[0][0]]
    for upper, lower in sides:
        assert upper == layers[-1], "each arrow must start where the one before it ends"
        layers.append(lower)
    return layers


def test_package_diagram_has_the_layers_of_the_import_contract() -> None:
    assert _drawn_layers() == _contract()


def test_every_package_in_the_diagram_has_a_box_with_its_name() -> None:
    text = (ROOT / "docs/diagrams/packages.mmd").read_text()
    boxes = dict(re.findall(r'^\s*(\w+)\["`\*\*(\w+)\*\*', text, re.MULTILINE))
    assert all(name == shown for name, shown in boxes.items())
    assert set(boxes) == set().union(*_contract())


@pytest.mark.parametrize("source", DIAGRAMS, ids=lambda path: path.stem)
def test_every_diagram_is_rendered_from_its_current_source(source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    svg = source.with_suffix(".svg").read_text()
    assert f"source sha256:{digest}" in svg, "edited but not rendered: run docs/diagrams/render.sh"
    assert not re.search(r'(?:href|src)="https?://(?!www\.w3\.org)', svg), "the image must load nothing"


@pytest.mark.parametrize("source", DIAGRAMS, ids=lambda path: path.stem)
def test_every_diagram_is_shown_on_the_architecture_page(source: Path) -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    assert f"../diagrams/{source.stem}.svg" in page
    assert f'"docs/diagrams/{source.name}"' in page
