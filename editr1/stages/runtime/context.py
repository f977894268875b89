"""The interface between a stage's code and its environment: settings, downloaded inputs, outputs and checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from editr1.artifacts import ArtifactStore
from editr1.artifacts.errors import ArtifactNotFound, DigestMismatch
from editr1.artifacts.export import empty_folder
from editr1.artifacts.weights import PICKLED_PATTERNS, UnusableModel, check_model_folder
from editr1.config.base import Settings
from editr1.config.loader import ConfigError, validate
from editr1.parallel.context import DistributedContext
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.job import StageJob, make_workdir
from editr1.runs.kinds import KINDS
from editr1.runs.record import Missing, progress_key
from editr1.runs.resolve import HubUnreachable
from editr1.stages.runtime.publisher import Publisher, open_stage_store, write_checkpoint
from editr1.stages.runtime.waiting_checkpoints import WaitingCheckpoints
from editr1.telemetry import Progress, Span, TrainHooks, span

S = TypeVar("S", bound=Settings)


class StageContext:
    """Environment of one process of a stage in one attempt: settings, inputs, outputs, progress and checkpoints."""

    def __init__(self, job: StageJob, should_stop: Callable[[], bool]) -> None:
        self.job = job
        self.workdir = make_workdir(job)
        self.distributed = DistributedContext()
        self.outputs: dict[str, str] = {}
        self.missing = Missing()
        self._stop_requested = should_stop
        self.store: ArtifactStore = open_stage_store(job, should_stop)
        direct = self.store.without_waiting()
        self.publisher = Publisher(
            WaitingCheckpoints(job),
            lambda folder, step: write_checkpoint(direct, job, folder, step, repair=self._damage_found),
            lambda: self._write_progress(direct),
            job.store.outage_seconds,
        )
        self._folders: dict[str, str] = {}
        self._damage_found = False
        """True if a checkpoint in the store is damaged. Later checkpoints and the outputs can have the same files, so that their
        files are then compared with the stored ones."""
        self._earlier = self.workdir / f"earlier-{job.key[:12]}.jsonl"
        if (
            self.is_main and not job.progress_file.exists()
        ):  # In a new pod, continue the progress lines of earlier pods.
            self._earlier.write_bytes(self.store.get_record(progress_key(job.run, job.stage, job.key)) or b"")
        self.progress = Progress(job.progress_file if self.is_main else None)

    @property
    def rank(self) -> int:
        """Rank of this process in the stage."""
        return self.distributed.rank

    @property
    def is_main(self) -> bool:
        """True on rank 0, the process that commits the outputs."""
        return self.distributed.is_main

    @property
    def span_file(self) -> Path | None:
        """JSON-lines file to which rank 0 writes its spans; None on other ranks."""
        return (self.job.runtime.span_file or self.workdir / "spans.jsonl") if self.is_main else None

    def should_stop(self) -> bool:
        """Return True if a stop is requested, or if the store was unreachable for longer than that is tolerated."""
        return self._stop_requested() or self.publisher.failure is not None

    def save_progress(self) -> None:
        """Write the progress lines of all attempts to the store. During an outage, wait until it answers.

        The report draws its curves from them. Call it only on rank 0.
        """
        self._write_progress(self.store)

    def add_missing(self, causes: Mapping[str, int], total: int) -> None:
        """Record items without a usable model answer, so that a later invocation runs the stage again.

        ``causes`` contains the number of these items by step and cause, and ``total`` is the total number of items in
        these steps. Items that can never be used, whatever the answers are, must not be included.
        """
        if causes:
            both = {**self.missing.causes}
            for cause, number in causes.items():
                both[cause] = both.get(cause, 0) + number
            self.missing = Missing(causes=both, total=self.missing.total + total)

    def settings(self, model: type[S]) -> S:
        """Return the settings of the stage as an instance of ``model``. Raise ConfigError if they are invalid."""
        if KINDS[self.job.kind].settings_model() is not model:
            raise ConfigError(
                f"stage {self.job.stage}: a {self.job.kind} stage does not have settings of type {model.__name__}"
            )
        return validate(model, self.job.config, where=f"stage {self.job.stage}")

    def check_inputs(self) -> None:
        """Raise ConfigError, with one line per problem, if the stage does not accept this combination of inputs."""
        if faults := KINDS[self.job.kind].rule(self.job.inputs.keys()):
            raise ConfigError("\n".join(f"inputs: {fault}" for fault in faults))

    def input(self, name: str) -> str:
        """Return the local folder of an input. The first call downloads it from the store or the Hugging Face Hub.

        Raises:
            ConfigError: the input is not given, or does not contain the file that the stage expects.
            HubUnreachable: the model cannot be downloaded from the hub.
            StoreError: the artifact cannot be fetched.
            UnusableModel: a file of the input is pickled, or its weights are incomplete.
        """
        where = f"stage {self.job.stage}, input {name}"
        reference = self.job.inputs.get(name)
        if reference is None:
            raise ConfigError(f"{where}: this input is required, but it is not set; add it to the inputs of the stage")
        with span(Span.LOAD, input=name, digest=reference):
            from_hub = reference.startswith("hub:")
            folder = Path(_from_hub(reference, where)) if from_hub else self._fetch(reference, where)
            self._folders[str(folder)] = f"input {name} of stage {self.job.stage} ({reference})"
            check_model_folder(folder)
        declared = KINDS[self.job.kind].input(name)
        if declared and declared.expected_file and not any(folder.glob(declared.expected_file)):
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
            raise ConfigError(
                f"{where} ({declared.what}): {reference[:19]} contains no {declared.expected_file}, only {found}; use another artifact"
            )
        return str(folder)

    def expert_examples(self) -> Path | None:
        """Return the file of the input ``experts``, or None if the input is not set. Raises what :meth:`input` raises."""
        return Path(self.input("experts")) / "experts.jsonl" if "experts" in self.job.inputs else None

    def name_input(self, error: UnusableModel) -> UnusableModel:
        """Return ``error`` with the name and the reference of the input to whose local folder the message refers."""
        names = [text for folder, text in self._folders.items() if folder in str(error)]
        return type(error)(f"{names[0]}: {error}") if names else error

    def table(self, name: str) -> Path:
        """Return the path of an input's Parquet file. Raise ConfigError if the input does not contain exactly one."""
        folder = Path(self.input(name))
        files = sorted(folder.glob("*.parquet"))
        if len(files) != 1:
            raise ConfigError(
                f"input {name!r}: expected one .parquet file in {folder}, found {len(files)}; use another artifact"
            )
        return files[0]

    def output_folder(self, name: str) -> Path:
        """Return the folder into which the stage writes an output before it is committed.

        On rank 0, which writes and commits the output, the folder is empty: files that an earlier attempt of the same job
        left in it are removed, as are the folders of other jobs. Scratch files belong next to the folder and not into it.
        """
        job_folder = self.workdir / f"out-{self.job.key[:12]}"
        if self.is_main:
            for other in self.workdir.glob("out-*"):
                if other != job_folder:
                    shutil.rmtree(other, ignore_errors=True)
            empty_folder(job_folder / name)
        return job_folder / name

    def commit(self, name: str, folder: Path, kind: str) -> str:
        """Commit ``folder`` to the store as the output ``name``, and return its digest. Call it only on rank 0.

        The parents of the artifact are the inputs of the stage and the model of its reward service.
        """
        used = [*self.job.inputs.values(), self.job.reward_digest or ""]
        with span(Span.COMMIT, output=name):
            manifest = self.store.commit(
                folder,
                kind=kind,
                stage=str(self.job.kind),
                run=self.job.run,
                parents=sorted(ref for ref in used if ref.startswith("sha256:")),
                config_digest=self.job.key,
                git_revision=self.job.git_revision,
                repair=self._damage_found,
            )
        self.outputs[name] = manifest.digest
        return manifest.digest

    def hooks(self) -> TrainHooks:
        """Return the hooks with which training code reports progress, saves checkpoints and resumes from one."""
        return TrainHooks(
            progress=self.progress,
            should_stop=self.should_stop,
            on_checkpoint=self._commit_checkpoint,
            resume_from=self._find_checkpoint,
        )

    def _fetch(self, digest: str, where: str) -> Path:
        try:
            downloads = self.job.downloads or self.workdir / f"in-{self.rank}"
            return self.store.fetch(digest, downloads / digest.removeprefix("sha256:")[:16])
        except (ArtifactNotFound, DigestMismatch) as error:
            raise type(error)(
                f"{where}: {error}; move what is damaged aside with: editr1 runs repair {self.job.run} --store {self.job.store.url} --yes,"
                " and then repeat the command that started the run, which makes or stores the input again"
            ) from None

    def _commit_checkpoint(self, folder: Path, step: int) -> None:
        if self.is_main:
            with span(Span.CHECKPOINT, step=step):
                self.publisher.checkpoint(folder, step)

    def _write_progress(self, store: ArtifactStore) -> None:
        files = [file for file in (self._earlier, self.job.progress_file) if file.is_file()]
        lines = b"".join(file.read_bytes() for file in files)
        store.put_record(progress_key(self.job.run, self.job.stage, self.job.key), lines)

    def _find_checkpoint(self) -> Path | None:
        group = DistributedContext.initialize() if self.distributed.world_size > 1 else None
        checkpoints = StageCheckpoints(self.store, self.job.run, self.job.stage, self.job.key)
        with span(Span.LOAD, input="checkpoint") as current:
            chosen = checkpoints.fetch_newest(self.workdir / f"resume-{self.rank}", chooser=group)
            current.set_attribute("folder", str(chosen.folder or ""))
        self._damage_found = chosen.passed_over
        return chosen.folder


def _from_hub(reference: str, where: str) -> str:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = reference.removeprefix("hub:").partition("@")
    try:
        return str(snapshot_download(name, revision=revision, ignore_patterns=PICKLED_PATTERNS))
    except (LocalEntryNotFoundError, httpx.HTTPError, HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        if 400 <= status < 500 and status != 429:
            raise ConfigError(
                f"{where}: the hub rejected the request for {reference}: {reason}; check name, revision and HF_TOKEN"
            ) from None
        raise HubUnreachable(
            f"{where}: {reference} cannot be downloaded from the hub: {reason}; check the network"
        ) from None
