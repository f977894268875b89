"""Check that the inputs and the artifact store of a run exist before any stage is started."""

from __future__ import annotations

from pathlib import Path, PurePath

from editr1.artifacts import ArtifactStore, open_store
from editr1.artifacts.errors import StoreError
from editr1.artifacts.weights import UnusableModel, check_model_folder
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import is_retryable
from editr1.runs.kinds import KINDS, Input
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.resolve import resolve_reference
from editr1.runs.spec import RunSpec


def check_inputs(spec: RunSpec, store: ArtifactStore | None, where: str) -> list[str]:
    """Check that folders, artifacts and outputs of other runs that ``spec`` reads exist and contain what the stage expects.

    Outputs of earlier stages and models on the Hugging Face Hub are not checked. No model is loaded.

    Args:
        spec: a valid run.
        store: artifact store of the run. If it is None, references to artifacts and to other runs are not checked.
        where: name of the run file, for messages.

    Returns:
        Notes about references that could not be checked, because the store did not respond.

    Raises:
        ConfigError: a folder or artifact does not exist, or does not contain the expected file. The message has one
            line per fault.
        UnusableModel: the only faults are damaged or pickled files in input folders.
    """
    faults: list[ConfigError | UnusableModel | StoreError] = []
    notes: list[str] = []
    for stage in spec.spec.stages:
        for name, text in stage.inputs.items():
            head = f"{where}: spec.stages.{stage.name}.inputs.{name}"
            declared = KINDS[stage.kind].input(name)
            try:
                _check(text, store, head, declared)
            except StoreError as error:
                if is_retryable(error.exit_code):
                    notes.append(f"{head}: {text} was not checked: {error}")
                else:
                    faults.append(ConfigError(f"{head}: {error}"))
            except (ConfigError, UnusableModel) as error:
                faults.append(error)
    if faults:
        kinds = {type(fault) for fault in faults}
        kind = UnusableModel if kinds == {UnusableModel} else ConfigError
        raise kind("\n".join(map(str, faults)))
    return notes


def check_store(config: StoreConfig, head: str) -> tuple[ArtifactStore | None, list[str]]:
    """Check that the artifact store of a run can be read, without writing to it.

    Args:
        config: settings of the store.
        head: beginning of the messages, such as "run.yaml: spec.store".

    Returns:
        The store, or None if its server did not respond in time; and notes about a server that did not respond.

    Raises:
        ConfigError: the bucket does not exist, there are no credentials, or the server rejects them.
    """
    if config.folder is not None:
        return open_store(config), []
    from editr1.artifacts.bucket import probe_bucket

    try:
        probe_bucket(config)
    except StoreError as error:
        if is_retryable(error.exit_code):
            return None, [f"{head}: {config.url} was not checked: {error}"]
        raise ConfigError(f"{head}: {error}") from None
    return open_store(config), []


def _check(text: str, store: ArtifactStore | None, head: str, declared: Input | None) -> None:
    reference = parse_reference(text, head)
    if reference.scheme is Scheme.PATH:
        folder = Path(reference.target)
        if not folder.is_dir():
            raise ConfigError(f"{head}: {reference.target!r} is not a folder; give the path of an existing folder")
        if declared and declared.expected_file and not any(folder.glob(declared.expected_file)):
            raise ConfigError(f"{head}: {reference.target!r} contains no {declared.expected_file}; use another folder")
        try:
            check_model_folder(folder)
        except UnusableModel as error:
            raise UnusableModel(f"{head}: {error}") from None
    elif store is not None and reference.scheme in (Scheme.ARTIFACT, Scheme.RUN):
        manifest = store.manifest(resolve_reference(reference, store, {}, head))
        if declared and (fault := declared.fault(manifest.kind)):
            raise ConfigError(f"{head}: {text} {fault}")
        expected = declared.expected_file if declared else ""
        if expected and not any(PurePath(file.path).match(expected) for file in manifest.files):
            raise ConfigError(f"{head}: {text} contains no {expected}; use another artifact")
