from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.store import store_at
from editr1.runs.find import find_record
from editr1.runs.record import (
    Missing,
    RunRecord,
    StageRecord,
    StageResult,
    State,
    ask_again,
    load_complete_result,
    newest_result,
    result_key,
    save_record,
)

RESULT = StageResult(key="k", missing=Missing(causes={"decompose: RequestRefused": 3}, total=12))


def test_what_is_missing_is_read_from_the_result_if_the_record_does_not_contain_it(tmp_path: Path) -> None:
    store = open_store(store_at(tmp_path.as_uri()))
    stage = StageRecord(name="curate", kind="curate", key="k", state=State.DONE)
    save_record(store, RunRecord(name="r", seed=0, state=State.DONE, created=0.0, stages={"curate": stage}))
    store.put_record(result_key("r", "curate", "k"), RESULT.model_dump_json().encode())
    record = find_record(tmp_path, store, "r")
    assert record is not None and record.stages["curate"].missing == RESULT.missing


def test_result_that_is_asked_again_can_be_referenced_but_is_not_complete(tmp_path: Path) -> None:
    store = open_store(store_at(tmp_path.as_uri()))
    store.put_record(result_key("r", "curate", "k"), RESULT.model_dump_json().encode())
    assert load_complete_result(store, "r", "curate", "k") == RESULT
    ask_again(store, "r", "curate", RESULT)
    assert load_complete_result(store, "r", "curate", "k") is None
    found = newest_result(store, "r", "curate")
    assert found is not None and found.missing == RESULT.missing
