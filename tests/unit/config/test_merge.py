"""Deep merge of nested settings."""

from editr1.config.merge import deep_merge


def test_override_takes_precedence_per_key() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert deep_merge(base, {"a": {"c": {"d": 4, "f": 5}}, "g": 6}) == {
        "a": {"b": 1, "c": {"d": 4, "f": 5}},
        "e": 3,
        "g": 6,
    }


def test_list_none_and_scalar_replace_a_mapping() -> None:
    base = {"a": {"b": 1}, "c": {"d": 1}, "e": [1, 2]}
    assert deep_merge(base, {"a": None, "c": 7, "e": [3]}) == {"a": None, "c": 7, "e": [3]}


def test_arguments_are_not_modified() -> None:
    base, override = {"a": {"b": 1}}, {"a": {"c": 2}}
    deep_merge(base, override)["a"]["b"] = 9
    assert (base, override) == ({"a": {"b": 1}}, {"a": {"c": 2}})
