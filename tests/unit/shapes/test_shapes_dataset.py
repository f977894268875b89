"""Tables of the shapes dataset: training and test data are disjoint by content."""

from __future__ import annotations

import pytest

from editr1.config.curate_stage import ShapesConfig
from editr1.config.loader import ConfigError
from editr1.data.tables import read_table
from editr1.data.types import EditCase, PreferencePair, Quadruple
from editr1.shapes import cases as shapes_cases
from editr1.shapes.cases import generate_cases, iterate_cases, without_sources
from editr1.shapes.dataset import ShapesDataset, decided_pairs, generate_shapes_dataset

# With this many training images, about one in eight test images would be among them by chance.
CONFIG = ShapesConfig(cases=2500, candidates=1, pairs=150, test_pairs=60, rl_cases=2500, test_cases=80)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataset:
    return generate_shapes_dataset(CONFIG, 7, tmp_path_factory.mktemp("shapes"))


def sources(cases: list[EditCase]) -> set[str]:
    return {case.source.sha256 for case in cases}


def test_no_source_image_is_in_training_and_test_data(dataset: ShapesDataset) -> None:
    cases = list(read_table(dataset.cases, EditCase))
    pairs, pairs_test = ([*read_table(path, PreferencePair)] for path in (dataset.pairs, dataset.pairs_test))
    training = sources([row.case for row in read_table(dataset.candidates, Quadruple)])
    training |= sources([pair.case for pair in pairs])
    training |= sources([case for case in cases if case.case_id.startswith(dataset.rl_prefix)])
    test = [case for case in cases if case.case_id.startswith(dataset.test_prefix)]
    assert len(training) > 4000 and len(test) == CONFIG.test_cases
    assert sum(pair.label == "winner" for pair in pairs_test) == CONFIG.test_pairs
    assert not training & (sources(test) | sources([pair.case for pair in pairs_test]))
    # Without this rule, training images would be among the test images.
    assert training & sources(generate_cases(CONFIG.test_cases, 7, "test"))
    assert training & sources([pair.case for pair in decided_pairs(CONFIG.test_pairs, 7, "pairtest")])


def test_other_test_cases_keep_their_ids_and_content(dataset: ShapesDataset) -> None:
    test = [case for case in read_table(dataset.cases, EditCase) if case.case_id.startswith(dataset.test_prefix)]
    unfiltered = {case.case_id: case for case in generate_cases(200, 7, "test")}
    assert all(case == unfiltered[case.case_id] for case in test)
    assert len({case.case_id for case in test}) == len(test)


def test_every_case_id_occurs_once(dataset: ShapesDataset) -> None:
    ids = [case.case_id for case in read_table(dataset.cases, EditCase)]
    assert len(ids) == len({*ids})


def test_training_data_with_all_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_cases, "_MOST_EXCLUDED", 30)
    excluded = sources(generate_cases(30, 7, "test"))
    with pytest.raises(ConfigError, match="reduce cases, pairs or rl_cases"):
        next(without_sources(iterate_cases(7, "test"), excluded))
