"""MkDocs hooks that render equations as MathML and docstring roles as code.

Browsers support MathML, so the site needs no JavaScript library for equations.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(<code>)")


def on_page_content(content: str, **_: Any) -> str:
    """Replace LaTeX with MathML, and remove roles such as ``:class:`` in front of code."""
    return _MATH.sub(_mathml, _ROLE.sub(r"\1", content))


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[3]).strip()
    return convert(latex, display="block" if match[2] == "[" else "inline")
