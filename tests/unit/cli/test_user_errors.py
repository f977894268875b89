"""User errors are reported with the cause and exit with the documented code."""

import errno
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from editr1.cli.main import app
from editr1.errors import ExitCode

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "quickstart.yaml"


def editr1(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def assert_rejected(done: Result, *words: str, code: int = ExitCode.CONFIG) -> None:
    assert done.exit_code == code, (done.output, done.exception)
    assert "error: " in done.output and all(word in done.output for word in words), done.output


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "http://127.0.0.1:99999", "http://127.0.0.1:80a0", "http://"])
def test_invalid_server_address_is_rejected(image: Path, server: str) -> None:
    assert_rejected(
        editr1("score", "--source", image, "--edited", image, "--instruction", "x", "--server", server),
        "--server",
        repr(server),
    )


def test_empty_instruction_and_unreadable_image_are_rejected(image: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    common = ("score", "--edited", image, "--server", "http://127.0.0.1:1")
    assert_refused_value(editr1(*common, "--source", image, "--instruction", ""), "--instruction", "empty")
    assert_rejected(editr1(*common, "--source", tmp_path / "empty.png", "--instruction", "x"), "empty.png", code=3)
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:40])
    assert_rejected(editr1(*common, "--source", tmp_path / "cut.png", "--instruction", "x"), "cut.png", code=3)


def assert_refused_value(done: Result, option: str, *words: str) -> None:
    assert done.exit_code == ExitCode.CONFIG, (done.output, done.exception)
    assert f"Invalid value for '{option}'" in done.output and all(word in done.output for word in words), done.output


@pytest.mark.parametrize("option", ["--store", "--name", "--runs-dir", "--set"])
def test_empty_value_of_an_option_is_rejected(option: str) -> None:
    assert_refused_value(editr1("run", SAMPLE, "--check", option, ""), option, "the value is empty")


def test_empty_argument_is_rejected() -> None:
    assert_refused_value(editr1("runs", "show", ""), "name", "the value is empty")


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_number_that_is_not_finite_is_rejected(image: Path, number: str) -> None:
    edit = ("score", "--source", image, "--edited", image, "--instruction", "x", "--server", "http://127.0.0.1:1")
    assert_refused_value(editr1(*edit, "--deadline", number), "--deadline")
    assert_refused_value(editr1("check-reward", "--server", "http://127.0.0.1:1", "--timeout", number), "--timeout")
    assert_refused_value(editr1("wait", "x", "--timeout", number), "--timeout", "not a finite number")


def test_deadline_above_the_maximum_is_rejected(image: Path) -> None:
    edit = ("score", "--source", image, "--edited", image, "--instruction", "x", "--server", "http://127.0.0.1:1")
    assert_rejected(editr1(*edit, "--deadline", "100000"), "deadline_seconds", "86400")


def test_name_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    name = os.fsdecode(b"x\xff")
    (tmp_path / name).touch()
    assert_rejected(
        editr1("artifacts", "push", tmp_path, "--store", tmp_path / "store"), r"x\udcff", "not valid UTF-8; rename"
    )
    assert_refused_value(editr1("run", SAMPLE, "--check", "--runs-dir", name), "--runs-dir", "not valid UTF-8")


@pytest.mark.parametrize("command", [("runs", "show"), ("timeline",)])
def test_name_that_no_run_can_have_is_rejected(command: tuple[str, ...], tmp_path: Path) -> None:
    store = tmp_path / "runs/a/store"
    (store / "records").mkdir(parents=True)
    words = (
        (*command, "../../etc", "--store", store)
        if "runs" in command
        else (*command, "../../etc", "--runs-dir", tmp_path)
    )
    assert_rejected(editr1(*words), "'../../etc' cannot be the name of a run")


def test_run_folder_that_cannot_be_read_is_skipped_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "closed/store").mkdir(parents=True)
    is_dir = Path.is_dir

    def denied(path: Path) -> bool:
        # Permissions do not stop root, who runs the tests in a container.
        if path.parent.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", denied)
    with caplog.at_level("WARNING", "editr1.runs"):
        assert editr1("runs", "ls", "--runs-dir", tmp_path).exit_code == 0
    assert f"{tmp_path / 'closed'}: skipped, because it cannot be read: Permission denied" in caplog.text


def test_full_disk_is_reported_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("editr1.data.importer.import_folder", full)
    done = editr1("data", "import", tmp_path, "--table", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert_rejected(done, f"{tmp_path / 'out'}: No space left on device; free some space", code=ExitCode.TRANSIENT)


def test_cluster_options_are_rejected_for_a_local_run() -> None:
    assert_rejected(
        editr1("run", SAMPLE, "--check", "--detach", "-n", "prod"), "--detach, --namespace", "--on kubernetes"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gcpo.learning_rate", ("gcpo.learning_rate=VALUE",)),
        ("sft.processes=2", ("--set spec.stages.sft.processes=2",)),
        ("spec.stages.nowhere.retries=2", ("the list has no entry 'nowhere'", "curate, sft, gcpo")),
        ("curate.curation.members.7.weight=3", ("the list has no entry '7'", "careful")),
        ("metadata.name=123", ("metadata.name", "123")),
    ],
)
def test_incomplete_or_unknown_override_is_rejected(override: str, message: tuple[str, ...]) -> None:
    assert_rejected(editr1("run", SAMPLE, "--check", "--set", override), *message)


@pytest.mark.parametrize("name", ["2-run", "a.b", "Run", "r" * 46])
def test_invalid_name_is_rejected_by_every_option(name: str, tmp_path: Path) -> None:
    allowed = "use at most 45 lower-case letters, digits and hyphens"
    model = "builtin:shapes-verifier"
    out = ("--rows", model, "--model", model, "--out", tmp_path / "out")
    for command in (
        ("run", SAMPLE, "--check", "--set", f"metadata.name={name}"),
        ("run", SAMPLE, "--check", "--set", f"spec.stages.sft.name={name}"),
        ("run", SAMPLE, "--check", "--name", name),
        ("run", SAMPLE, "--check", "--on", "kubernetes", "--store", "s3://bucket/x", "--name", name),
        ("sft", *out, "--name", name),
        ("render", "curate", "--set", "store.url=s3://bucket/x", "--name", name),
    ):
        assert_rejected(editr1(*command), "name", name[:40], allowed)
    assert not (tmp_path / "out").exists()


def test_run_whose_release_names_are_too_long_is_rejected_before_it_starts() -> None:
    command = ("run", SAMPLE, "--check", "--on", "kubernetes", "--store", "s3://bucket/x", "--name", "r" * 40)
    assert_rejected(
        editr1(*command), "--name: run 'rrr", "stage 'evaluate': the release name", "at most 45 are allowed"
    )


@pytest.mark.parametrize(
    "override",
    [
        "spec.stages.sft.retries=5",
        "spec.stages.1.retries=5",
        "curate.curation.members.careful.weight=3",
        'metadata.name="true"',
    ],
)
def test_override_sets_list_entries_and_quoted_text(override: str) -> None:
    done = editr1("run", SAMPLE, "--check", "--set", override)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--seed", str(2**31)), ("--processes", "0")])
def test_out_of_range_option_is_rejected_before_a_stage_starts(tmp_path: Path, option: tuple[str, str]) -> None:
    model = "builtin:shapes-verifier"
    done = editr1("sft", "--rows", model, "--model", model, "--out", tmp_path / "out", *option)
    assert done.exit_code == 2 and option[0] in done.output
    assert not (tmp_path / "out").exists()


def test_unknown_environment_variable_is_reported(tmp_path: Path) -> None:
    words = ("sft", "--rows", tmp_path, "--model", tmp_path, "--out", tmp_path / "out")
    done = editr1(*words, EDITR1_SFT__LEARNING_RAT="1")
    assert_rejected(done, "EDITR1_SFT__LEARNING_RAT", "did you mean 'learning_rate'?")
    assert_rejected(
        editr1(*words, EDITR1_SFT__LEARNING_RATE="fast"),
        "learning_rate (environment variable EDITR1_SFT__LEARNING_RATE)",
    )


def test_environment_variable_sets_an_entry_of_a_mapping(tmp_path: Path) -> None:
    from editr1.config.curate_stage import CurateStageConfig
    from editr1.config.loader import load_settings

    env = {
        "E__CURATION__ENDPOINTS__DEFAULT": "{base_url: 'http://x:1/v1'}",
        "E__CURATION__ENDPOINTS__DEFAULT__CONCURRENCY": "3",
    }
    found = load_settings(CurateStageConfig, env=env, env_prefix="E__")
    assert found.curation.endpoints["default"].concurrency == 3


def test_missing_folder_store_or_run_is_an_error(tmp_path: Path) -> None:
    assert_rejected(editr1("runs", "ls", "--runs-dir", tmp_path / "nope"), "nope: no such folder")
    assert_rejected(editr1("runs", "ls", "--store", tmp_path), "not an artifact store")
    assert_rejected(editr1("artifacts", "ls", "--store", tmp_path / "nope"), "no such folder")
    assert_rejected(editr1("timeline", "nope", "--runs-dir", tmp_path), "no run 'nope' in folder", "--store")
    done = editr1("runs", "ls", "--runs-dir", tmp_path)
    assert done.exit_code == 0 and "no runs in" in done.output


def test_push_of_empty_folder_and_pull_to_file_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_rejected(
        editr1("artifacts", "push", tmp_path / "empty", "--store", tmp_path / "store"), "it contains no files"
    )
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("x")
    digest = editr1("artifacts", "push", tmp_path / "full", "--store", tmp_path / "store").output.strip()
    assert_rejected(
        editr1("artifacts", "pull", digest, tmp_path / "file", "--store", tmp_path / "store"), "file: cannot fetch"
    )


def test_file_as_output_folder_is_rejected(tmp_path: Path, image: Path) -> None:
    assert_rejected(editr1("run", SAMPLE, "--runs-dir", image), str(image))
    assert_rejected(editr1("curate", "--out", image / "out"), str(image))
    assert_rejected(editr1("data", "import", tmp_path, "--table", "none.csv", "--out", image / "out"), "not a folder")


@pytest.mark.parametrize("text", ["some words", "[1, 2]", "a: [", "apiVersion: v1\nclusters: 7\n", "\x00\x01"])
def test_invalid_kubeconfig_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    assert_rejected(editr1("list", KUBECONFIG=str(tmp_path / "config")), "no cluster")


def test_cluster_settings_of_the_wrong_type_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n"
    )
    (tmp_path / "cluster.yaml").write_text(f"kubeconfig: {tmp_path / 'config'}\nvalues: {{store: 's3://b/x'}}\n")
    done = editr1("run", SAMPLE, "--on", "kubernetes", "--cluster", tmp_path / "cluster.yaml")
    assert_rejected(done, "values.store", "must be a mapping")


def test_unreadable_record_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from editr1.artifacts import open_store
    from editr1.runs.record import RunRecord, load_record, save_record

    store = open_store((tmp_path / "store").as_uri())
    save_record(store, RunRecord(name="good", seed=0, created=1.0))
    store.put_record("runs/bad/record.json", b'{"name": "bad", "seed": 0, "created": 1, "of_tomorrow": 1}')
    done = editr1("runs", "ls", "--store", (tmp_path / "store").as_uri())
    assert done.exit_code == 0 and "good" in done.output
    assert "runs/bad/record.json" in caplog.text and "of_tomorrow" in caplog.text
    with pytest.raises(
        ValueError, match=r"runs/bad/record\.json: not a run record of this version of editr1: of_tomorrow"
    ):
        load_record(store, "bad")


def test_import_of_an_empty_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source,instruction,edited,editor\n")
    assert_rejected(
        editr1("data", "import", tmp_path, "--table", tmp_path / "t.csv", "--out", tmp_path / "o"),
        "the table is empty",
        code=3,
    )


@pytest.mark.parametrize("words", [(), ("quickstart",), ("quickstart", "--store", "s3://b/x")])
def test_former_name_of_timeline_is_rejected_with_the_new_name(words: tuple[str, ...]) -> None:
    done = editr1("trace", *words)
    assert done.exit_code == 2 and done.output == "error: editr1 trace is now called: editr1 timeline\n"
    listed = {line.split()[0] for line in editr1("--help").output.splitlines() if line.strip()}
    assert "timeline" in listed and "trace" not in listed
