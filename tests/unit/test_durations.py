import pytest

from editr1.durations import format_duration, format_minute, format_timestamp, parse_timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (10.4, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (372, "6 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7815, "2 h 10 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration_is_rounded_to_the_displayed_unit(seconds, text):
    assert format_duration(seconds) == text


def test_timestamp_survives_a_round_trip():
    assert parse_timestamp("2026-05-01T17:05:48Z") == 1777655148.0
    assert format_timestamp(1777655148.9) == "2026-05-01T17:05:48Z"
    assert format_minute(1777655148.9) == "2026-05-01 17:05 UTC"


def test_nanoseconds_distinguish_log_lines_within_one_microsecond():
    earlier = parse_timestamp("2026-05-01T17:05:48.123456100Z")
    later = parse_timestamp("2026-05-01T17:05:48.123456900Z")
    assert 1777655148.123 < earlier < later < 1777655148.124


@pytest.mark.parametrize("text", ["", "yesterday", "2026-05-01T17:05:48.12x456Z", "17:05:48Z"])
def test_invalid_timestamp_is_rejected(text):
    with pytest.raises(ValueError):
        parse_timestamp(text)
