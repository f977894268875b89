"""The reward model in keys: the same for a service of the run and for addresses, and independent of the addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.loader import ConfigError
from editr1.config.serve import ServeConfig
from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.resolve import ResolvedStage, resolve_job, resolve_stage
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec, check_run
from editr1.serving.identity import RewardIdentity, reward_identity

OTHER = "sha256:" + "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "store").as_uri()))


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    return f"path:{tmp_path / 'm'}"


def stages(model: str, reward: str = "serve", *, digest: str | None = None, **serve: Any) -> list[StageSpec]:
    inputs = {"cases": model, "editor": model}
    return [
        StageSpec(name="serve", kind=Kind.SERVE, inputs={"model": model}, config=serve),
        StageSpec(name="grpo", kind=Kind.GRPO, inputs=inputs, reward=reward, reward_digest=digest),
    ]


def resolved(store: ArtifactStore, every: list[StageSpec], answer: RewardIdentity | None = None) -> ResolvedStage:
    def ask(urls: Any, seconds: float, *, where: str) -> RewardIdentity:
        assert answer is not None, "the servers must not be asked"
        assert seconds == 900.0 and where == "stage grpo, reward"
        return answer

    return resolve_stage(every[1], every, 0, store, {}, ask=ask)


def test_key_is_independent_of_port_and_address(store: ArtifactStore, model: str) -> None:
    served = resolved(store, stages(model, port=1))
    assert served.key == resolved(store, stages(model, port=2)).key
    assert served.key != resolved(store, stages(model, max_new_tokens=9)).key
    identity = reward_identity(
        resolve_stage(stages(model)[0], stages(model), 0, store, {}).inputs["model"], ServeConfig()
    )
    assert served.reward == identity
    for url in ("http://a:1", "http://b:2,http://c:3"):
        assert resolved(store, stages(model, url), identity).key == served.key


def test_key_changes_with_the_model_at_the_same_address(store: ArtifactStore, model: str) -> None:
    keys = {
        resolved(store, stages(model, "http://a:1"), reward_identity(digest, ServeConfig(max_new_tokens=n))).key
        for digest in (OTHER, "sha256:" + "c" * 64)
        for n in (1, 2)
    }
    assert len(keys) == 4


def test_stated_digest_is_used_without_asking_the_server(store: ArtifactStore, model: str) -> None:
    found = resolved(store, stages(model, "http://a:1", digest=OTHER))
    assert found.reward == RewardIdentity(model=OTHER)


def test_stated_digest_without_addresses_is_refused(model: str) -> None:
    body = RunBody(stages=stages(model, digest=OTHER))
    spec = RunSpec(api_version=API_VERSION, kind="EditRun", metadata=Metadata(name="r"), spec=body)
    with pytest.raises(ConfigError, match=r"grpo\.reward_digest: only applies to addresses"):
        check_run(spec, "run.yaml")


def test_job_of_a_chart_gets_the_identity_that_the_server_reports(
    store: ArtifactStore, model: str, tmp_path: Path
) -> None:
    config = StoreConfig(url=(tmp_path / "store").as_uri())
    job = StageJob(
        run="r", stage="grpo", kind=Kind.GRPO, seed=0, store=config, workdir=tmp_path, reward_urls=["http://a:1"],
        inputs={"cases": model, "editor": model},
    )  # fmt: skip
    identity = reward_identity(OTHER, ServeConfig())
    done = resolve_job(job, store, ask=lambda *_, **__: identity)
    assert (done.reward, done.reward_digest) == (identity, OTHER)
    assert done.key == resolved(store, stages(model, "http://elsewhere:1"), identity).key
    stated = resolve_job(job.model_copy(update={"reward_digest": OTHER}), store)
    assert stated.reward == RewardIdentity(model=OTHER) and stated.key != done.key


def test_names_of_labeller_and_judge_are_in_the_key(store: ArtifactStore, model: str) -> None:
    def key(kind: Kind, inputs: dict[str, str], config: dict[str, Any]) -> str:
        stage = StageSpec(name="s", kind=kind, inputs=inputs, config=config)
        return resolve_stage(stage, [stage], 0, store, {}).key

    keys = {key(Kind.CURATE, {}, {"curation": {"decomposer": {"model": name}}}) for name in ("a", "b")}
    keys |= {
        key(Kind.EVALUATE, {"pairs": model, "rl": model}, {"public": {"judge": {"model": name}}}) for name in ("a", "b")
    }
    assert len(keys) == 4
