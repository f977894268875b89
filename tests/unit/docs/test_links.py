"""All internal links of the site and the README resolve, and the site loads nothing from other servers."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[3]
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_MARKDOWN_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update(value for name, value in values.items() if name in ("id", "name"))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in _LOADS and _LOADS[tag] in values:
            self.loads.append(values[_LOADS[tag]])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(values["href"])


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_every_internal_link_and_anchor_of_the_site_exists(site: Path) -> None:
    broken, followed = [], 0
    for path in site.rglob("*.html"):
        if path.name == "404.html":
            continue
        page = _read(path)
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            followed += 1
            if not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _read(target).ids:
                broken.append(f"{path.relative_to(site)}: no anchor {link}")
    assert not broken, "\n".join(broken[:30])
    assert followed > 1000


def test_site_loads_nothing_from_other_servers(site: Path) -> None:
    foreign = {load for path in site.rglob("*.html") for load in _read(path).loads if urlsplit(load).netloc}
    assert foreign == set()


def test_every_relative_link_of_the_readme_exists() -> None:
    for link in _MARKDOWN_LINK.findall((ROOT / "README.md").read_text()):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = ROOT / parts.path if parts.path else ROOT / "README.md"
        assert target.exists(), link
        if parts.fragment:
            anchors = {_slug(heading) for heading in _HEADING.findall(target.read_text())}
            assert parts.fragment in anchors, link


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_every_repository_path_on_a_page_exists() -> None:
    tops = ("editr1", "operators", "charts", "manifests", "tests", "docs", "images")
    missing = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for path in re.findall(r"`([\w./-]+)`", page.read_text()):
            if path.split("/")[0] in tops and "/" in path and not (ROOT / path).exists():
                missing.append(f"{page.relative_to(ROOT)}: {path}")
    assert not missing
