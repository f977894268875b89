"""What an evaluation and an SFT need is said before anything is read."""

from __future__ import annotations

import pytest

from editr1.config.evaluate import EvaluateConfig
from editr1.config.loader import ConfigError
from editr1.stages.evaluate import check_inputs

ANY = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "nothing to evaluate"),
        (("pairs", "cases"), "nothing to evaluate"),
        (("rl",), "judged on pairs"),
        (("before", "rl", "pairs"), "judged on cases"),
        (("before", "cases"), "verifier rl judges the editors"),
    ],
)
def test_an_evaluation_that_lacks_something_says_what(given: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_inputs(dict.fromkeys(given, ANY), EvaluateConfig())


@pytest.mark.parametrize("given", [("rl", "pairs"), ("sft", "rl", "pairs"), ("before", "cases"), ("after", "cases")])
def test_a_verifier_alone_and_an_editor_alone_are_enough_where_the_truth_is_known(given: tuple[str, ...]) -> None:
    check_inputs(dict.fromkeys(given, ANY), EvaluateConfig(truth="shapes"))
