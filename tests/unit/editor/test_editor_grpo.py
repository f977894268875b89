"""Editor training end to end on tiny pipelines."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline
from safetensors.torch import load_file

from editr1.config.grpo import GrpoConfig, LoraConfig
from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.data.tables import write_table
from editr1.data.types import EditCase, FailureCause, Scored, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.editor.cases import CaseOrder
from editr1.editor.grpo import SETTINGS_FIXED_ON_RESUME, train_grpo
from editr1.editor.policies import FluxKontextPolicy, load_policy
from editr1.editor.reward import EditedSample, RewardBudgetExceeded, RewardCollector, RewardModelChanged
from editr1.editor.sample import EditSettings, edit_images
from editr1.editor.sampler import GroupSampler
from editr1.telemetry import Interrupted, Progress, TrainHooks
from editr1.training_signal import NoTrainingSignal

Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]


def changed(config: GrpoConfig, **changes: Any) -> GrpoConfig:
    return GrpoConfig(**{**config.model_dump(), **changes})


def reported_metrics(path: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["metrics"] for line in lines if "metrics" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "transformer").glob("*.safetensors")))


def largest_difference(a: Path, b: Path) -> float:
    first, second = weights(a), weights(b)
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> tuple[Path, list[dict[str, float]], dict[str, float]]:
    root = tmp_path_factory.mktemp("trained")
    hooks = TrainHooks(progress=Progress(root / "progress.jsonl"))
    final = train_grpo(small, editor=flux_folder, cases=cases, scorer=scorer, output_dir=root / "editor", hooks=hooks)
    return root / "editor", reported_metrics(root / "progress.jsonl"), final


def test_every_iteration_reports_metrics(trained: tuple[Path, list[dict[str, float]], dict[str, float]]) -> None:
    _, reported, final = trained
    assert len(reported) == 4
    assert {"reward_mean", "zero_spread", "ratio", "clip_frac", "failed"} <= reported[0].keys()
    assert final["iterations"] == 4


def test_ratio_is_one_in_the_first_batch(
    trained: tuple[Path, list[dict[str, float]], dict[str, float]],
) -> None:
    assert all(line["ratio_error_first"] < 1e-6 for line in trained[1])


def test_trained_editor_loads_with_plain_diffusers(
    trained: tuple[Path, list[dict[str, float]], dict[str, float]], flux_folder: Path
) -> None:
    assert isinstance(DiffusionPipeline.from_pretrained(trained[0]), FluxKontextPipeline)
    assert largest_difference(trained[0], flux_folder) > 1e-5


def test_resumed_training_equals_uninterrupted_training(
    tmp_path: Path,
    trained: tuple[Path, list[dict[str, float]], dict[str, float]],
    flux_folder: Path,
    cases: Path,
    small: GrpoConfig,
    scorer: Scorer,
) -> None:
    checkpoints: list[tuple[Path, int]] = []
    progress = Progress(tmp_path / "progress.jsonl")
    hooks = TrainHooks(
        progress=progress,
        should_stop=lambda: len(reported_metrics(tmp_path / "progress.jsonl")) == 2,
        on_checkpoint=lambda folder, step: checkpoints.append((folder, step)),
    )
    arguments: dict[str, Any] = {
        "editor": flux_folder,
        "cases": cases,
        "scorer": scorer,
        "output_dir": tmp_path / "editor",
    }
    with pytest.raises(Interrupted):
        train_grpo(small, **arguments, hooks=hooks)
    assert checkpoints[-1][1] == 2
    final = train_grpo(small, **arguments, hooks=TrainHooks(progress=progress, resume_from=checkpoints[-1][0]))
    assert reported_metrics(tmp_path / "progress.jsonl") == trained[1]
    assert final | {"seconds": 0.0} == trained[2] | {"seconds": 0.0}
    assert final["reward_first"] == pytest.approx(sum(line["reward_mean"] for line in trained[1]) / 4)
    assert largest_difference(trained[0], tmp_path / "editor") == 0.0


def test_diverged_training_stops_without_writing_an_editor(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    checkpoints: list[Path] = []
    hooks = TrainHooks(on_checkpoint=lambda folder, _: checkpoints.append(folder))
    config = changed(small, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(
        ConfigError, match=r"learning_rate 1e\+30: the training diverged in iteration 2: the decoded images have NaN"
    ):
        train_grpo(config, editor=flux_folder, cases=cases, scorer=scorer, output_dir=tmp_path / "editor", hooks=hooks)
    assert not (tmp_path / "editor").exists()
    assert len(checkpoints) == 1


def test_non_finite_gradient_does_not_update_the_weights(
    tmp_path: Path,
    flux_folder: Path,
    cases: Path,
    small: GrpoConfig,
    scorer: Scorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_: pytest.fail("the optimizer stepped"))
    with pytest.raises(
        ConfigError, match=r"precision fp32: .* not finite before the first update: the gradient norm is inf"
    ):
        train_grpo(small, editor=flux_folder, cases=cases, scorer=scorer, output_dir=tmp_path / "editor")


def test_settings_fixed_on_resume_exist() -> None:
    assert set(SETTINGS_FIXED_ON_RESUME) <= GrpoConfig.model_fields.keys()


def test_checkpoint_with_other_settings_is_rejected(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    folders: list[Path] = []
    arguments: dict[str, Any] = {
        "editor": flux_folder,
        "cases": cases,
        "scorer": scorer,
        "output_dir": tmp_path / "editor",
    }
    hooks = TrainHooks(should_stop=lambda: True, on_checkpoint=lambda folder, _: folders.append(folder))
    with pytest.raises(Interrupted):
        train_grpo(small, **arguments, hooks=hooks)
    with pytest.raises(ValueError, match=r"seed: the checkpoint .* was made with 0, but the setting is now 1"):
        train_grpo(changed(small, seed=1), **arguments, hooks=TrainHooks(resume_from=folders[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.04},
        {"beta": 0.1, "kl": "velocity", "advantage_std": "group"},
        {"sde": "cps", "cps_logprob": "public", "beta": 0.1, "kl": "gaussian"},
        {"sde_window_scope": "group", "sde_window_size": 1, "trajectory_dtype": "bf16"},
        {"update_every": "step", "passes": 2, "micro_batch_size": 3, "sde_window_size": None},
        {"precision": "bf16-mixed", "gradient_checkpointing": True, "ema_decay": 0.0, "overlap": False},
    ],
)
def test_training_runs_with_each_method_variant(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer, changes: dict[str, Any]
) -> None:
    config = changed(small, iterations=2, **changes)
    progress = Progress(tmp_path / "progress.jsonl")
    train_grpo(
        config,
        editor=flux_folder,
        cases=cases,
        scorer=scorer,
        output_dir=tmp_path / "editor",
        hooks=TrainHooks(progress=progress),
    )
    reported = reported_metrics(tmp_path / "progress.jsonl")
    if config.precision == "fp32":
        assert all(line["ratio_error_first"] < 1e-6 for line in reported)
    if config.beta > 0:
        assert reported[0]["kl"] == pytest.approx(0.0, abs=1e-9)
        assert reported[1]["kl"] > 0.0


def test_lora_exports_merged_weights_and_separate_adapters(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer, make_image: Callable[..., Any]
) -> None:
    config = changed(small, iterations=2, tune="lora", beta=0.04, lora=LoraConfig(rank=4, alpha=8), learning_rate=1e-2)
    out = tmp_path / "editor"
    train_grpo(config, editor=flux_folder, cases=cases, scorer=scorer, output_dir=out)
    assert largest_difference(out, flux_folder) > 1e-5
    plain = load_policy(str(flux_folder))
    plain.pipeline.load_lora_weights(out / "lora")
    merged = load_policy(str(out))
    a = edit_images(plain, [make_image(1)], ["make it red"], EditSettings(num_inference_steps=4))[0]
    b = edit_images(merged, [make_image(1)], ["make it red"], EditSettings(num_inference_steps=4))[0]
    assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 1


def test_qwen_image_edit_trains_for_one_iteration(
    tmp_path: Path, qwen_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    config = changed(small, iterations=1, guidance_scale=4.0)
    progress = Progress(tmp_path / "progress.jsonl")
    train_grpo(
        config,
        editor=qwen_folder,
        cases=cases,
        scorer=scorer,
        output_dir=tmp_path / "editor",
        hooks=TrainHooks(progress=progress),
    )
    assert largest_difference(tmp_path / "editor", qwen_folder) > 1e-6
    assert reported_metrics(tmp_path / "progress.jsonl")[0]["ratio_error_first"] < 1e-6
    assert json.loads((tmp_path / "editor" / "model_index.json").read_text())["processor"] == [
        "transformers",
        "Qwen2VLProcessor",
    ]
    load_policy(str(tmp_path / "editor"), guidance=4.0)


def test_same_instruction_on_two_sources_makes_two_groups(
    tmp_path: Path, flux_folder: Path, small: GrpoConfig, make_case: Callable[..., EditCase]
) -> None:
    path = tmp_path / "cases.parquet"
    write_table(path, [make_case(0, "make it red"), make_case(1, "make it red")], EditCase)
    by_source: dict[bytes, float] = {}

    def constant_by_source(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        for item in items:
            by_source.setdefault(item.source.data, 2.0 + 6.0 * len(by_source))
        return [Scored(score=by_source[item.source.data], verdicts=(), model_digest="m") for item in items]

    progress = Progress(tmp_path / "progress.jsonl")
    config = changed(small, iterations=1, reward_concurrency=1)
    with pytest.raises(NoTrainingSignal):
        train_grpo(
            config,
            editor=flux_folder,
            cases=path,
            scorer=constant_by_source,
            output_dir=tmp_path / "editor",
            hooks=TrainHooks(progress=progress),
        )
    assert len(by_source) == 2
    assert reported_metrics(tmp_path / "progress.jsonl")[0]["zero_spread"] == 1.0


@pytest.mark.parametrize("failed_fraction", [0.0, 1.0])
def test_training_without_two_different_scores_in_a_group_stops_early(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, failed_fraction: float
) -> None:
    def same(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        return [Scored(score=7.0, verdicts=(), model_digest="m") for _ in items]

    config = changed(small, iterations=100, max_failed_fraction=1.0)
    progress = Progress(tmp_path / "progress.jsonl")
    with pytest.raises(
        NoTrainingSignal,
        match=rf"none of the 20 sample groups in the first 10 iterations .* {int(80 * failed_fraction)} of 80 scores failed",
    ):
        train_grpo(
            config,
            editor=flux_folder,
            cases=cases,
            scorer=failing(1.0, same) if failed_fraction else same,
            output_dir=tmp_path / "e",
            hooks=TrainHooks(progress=progress),
        )
    assert not (tmp_path / "e").exists()


def failing(fraction: float, scorer: Scorer) -> Scorer:
    count = 0

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        nonlocal count
        outcomes = scorer(items)
        for i in range(len(outcomes)):
            count += 1
            if (count * fraction) % 1.0 < fraction:
                outcomes[i] = ScoreFailure(cause=FailureCause.DEADLINE, detail="late")
        return outcomes

    return score


def test_allowed_failed_scores_are_counted(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    config = changed(small, iterations=1, max_failed_fraction=0.3, reward_concurrency=1)
    final = train_grpo(
        config, editor=flux_folder, cases=cases, scorer=failing(0.25, scorer), output_dir=tmp_path / "editor"
    )
    assert final["failed"] == final["failed_deadline"] == 2.0


def test_iteration_whose_scores_failed_because_of_a_stop_is_repeated(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    """A stop cancels pending requests. The settings allow any failures, but those would not occur without the stop."""
    config = changed(small, iterations=2, max_failed_fraction=1.0, score_batch_size=4)
    undisturbed = train_grpo(
        config, editor=flux_folder, cases=cases, scorer=scorer, output_dir=tmp_path / "a" / "editor"
    )
    calls, saved = itertools.count(), tmp_path / "saved"

    def stopped(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        if next(calls) < 2:
            return scorer(items)
        stop.set()
        return [ScoreFailure(cause=FailureCause.UNREACHABLE, detail="this process is stopping")] * len(items)

    stop = threading.Event()
    hooks = TrainHooks(
        should_stop=stop.is_set,
        on_checkpoint=lambda folder, _: shutil.copytree(folder, saved, dirs_exist_ok=True),
    )
    with pytest.raises(Interrupted, match="stopped after iteration 1 of 2"):
        train_grpo(
            config, editor=flux_folder, cases=cases, scorer=stopped, output_dir=tmp_path / "b" / "editor", hooks=hooks
        )
    resumed = train_grpo(
        config,
        editor=flux_folder,
        cases=cases,
        scorer=scorer,
        output_dir=tmp_path / "b" / "editor",
        hooks=TrainHooks(resume_from=lambda: saved),
    )
    del resumed["seconds"], undisturbed["seconds"]
    assert resumed == undisturbed
    assert largest_difference(tmp_path / "a" / "editor", tmp_path / "b" / "editor") == 0.0


def test_outcomes_of_other_samples_are_not_used(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    def reversed_order(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        pairs = zip(items, scorer(items), strict=True)
        return [outcome.model_copy(update={"edited": item.edited.digest}) for item, outcome in pairs][::-1]

    with pytest.raises(ValueError, match="did not return the outcomes of the samples: outcome 0 is for"):
        train_grpo(small, editor=flux_folder, cases=cases, scorer=reversed_order, output_dir=tmp_path / "editor")


def test_too_many_failed_scores_stop_training_with_a_checkpoint(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, scorer: Scorer
) -> None:
    steps: list[int] = []
    with pytest.raises(RewardBudgetExceeded, match=r"4 of 8 scores failed \(50%\).*deadline: 4"):
        train_grpo(
            changed(small, reward_concurrency=1),
            editor=flux_folder,
            cases=cases,
            scorer=failing(0.5, scorer),
            output_dir=tmp_path / "editor",
            hooks=TrainHooks(on_checkpoint=lambda _, step: steps.append(step)),
        )
    assert steps == [0]


def test_change_of_verifier_during_training_is_rejected(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig
) -> None:
    calls = 0

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        nonlocal calls
        calls += 1
        return [Scored(score=float(i), verdicts=(), model_digest=f"m{calls > 2}") for i, _ in enumerate(items)]

    with pytest.raises(RewardModelChanged, match=r"mFalse, mTrue"):
        train_grpo(
            changed(small, reward_concurrency=1),
            editor=flux_folder,
            cases=cases,
            scorer=score,
            output_dir=tmp_path / "editor",
        )


def test_scorer_that_drops_items_is_rejected(make_case: Callable[..., EditCase], make_image: Any) -> None:
    case = make_case(0)
    with RewardCollector(lambda items: []) as collector:
        collector.submit([EditedSample(0, case, case.source, make_image(1))])
        with pytest.raises(ValueError, match="0 outcomes for 1 edits"):
            collector.collect()


def test_instruction_and_reference_are_encoded_once_per_case(
    flux_folder: Path, small: GrpoConfig, cases: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(str(flux_folder))
    rows: dict[str, int] = defaultdict(int)
    text, vae = policy.pipeline.text_encoder_2, policy.pipeline.vae
    text.register_forward_hook(lambda _, args, __: rows.__setitem__("text", rows["text"] + len(args[0])))
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: (rows.__setitem__("vae", rows["vae"] + len(x)), encode(x))[1])
    order = CaseOrder(cases, seed=0, per_iteration=2, iterations=1)
    with RewardCollector(scorer) as collector:
        batches = GroupSampler(policy, small).sample(0, order.iteration(0), collector)
        collector.collect()
    assert sum(len(batch) for batch in batches) == 8
    assert dict(rows) == {"text": 2, "vae": 2}


def test_sampling_continues_while_scores_are_pending(flux_folder: Path, small: GrpoConfig, cases: Path) -> None:
    import threading

    second_call = threading.Event()
    calls = 0

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        nonlocal calls
        calls += 1
        if calls == 1:
            # Wait until the second batch has been sampled and submitted.
            assert second_call.wait(30)
        else:
            second_call.set()
        return [Scored(score=1.0, verdicts=(), model_digest="m") for _ in items]

    with RewardCollector(score, concurrency=2) as collector:
        GroupSampler(load_policy(str(flux_folder)), small).sample(
            0, CaseOrder(cases, seed=0, per_iteration=2, iterations=1).iteration(0), collector
        )
        assert bool(collector.collect().valid_mask.all())


def test_images_of_several_sizes_train_together(
    tmp_path: Path, flux_folder: Path, small: GrpoConfig, scorer: Scorer, make_case: Callable[..., EditCase]
) -> None:
    path = tmp_path / "cases.parquet"
    write_table(path, [make_case(0), make_case(1, width=90, height=41)], EditCase)
    seen: set[tuple[int, int]] = set()

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        from editr1.data.images import decode_image

        for item in items:
            assert decode_image(item.source.data).size == decode_image(item.edited.data).size
            seen.add(decode_image(item.edited.data).size)
        return scorer(items)

    config = changed(small, iterations=1, resolution=48)
    train_grpo(config, editor=flux_folder, cases=path, scorer=score, output_dir=tmp_path / "editor")
    assert seen == {(48, 48), (64, 32)}


def test_case_without_principles_is_rejected_with_its_row(tmp_path: Path, make_case: Callable[..., EditCase]) -> None:
    path = tmp_path / "cases.parquet"
    write_table(path, [make_case(0), make_case(1).model_copy(update={"principles": ()})], EditCase)
    with pytest.raises(TableError, match=r"row 2: principles: the case has no principles"):
        CaseOrder(path, seed=0, per_iteration=1, iterations=1)


def test_case_order_covers_every_case_and_is_split_across_processes(cases: Path) -> None:
    whole = CaseOrder(cases, seed=3, per_iteration=2, iterations=6)
    first_epoch = [keyed.case.case_id for i in range(3) for keyed in whole.iteration(i)]
    assert sorted(first_epoch) == [f"case-{i}" for i in range(6)]
    assert [k.key for i in range(6) for k in whole.iteration(i)] == list(range(12))
    parts = [CaseOrder(cases, seed=3, per_iteration=2, iterations=6, rank=r, size=2) for r in range(2)]
    for i in range(6):
        assert [k for part in parts for k in part.iteration(i)] == whole.iteration(i)
    with pytest.raises(ValueError, match=r"cases_per_iteration 2 is not a multiple .* use a multiple of 3"):
        CaseOrder(cases, seed=0, per_iteration=2, iterations=1, size=3)


def test_sampling_and_update_disable_cudnn_attention(
    tmp_path: Path, flux_folder: Path, cases: Path, small: GrpoConfig, monkeypatch: pytest.MonkeyPatch, scorer: Scorer
) -> None:
    allowed: set[tuple[bool, bool]] = set()
    velocity = FluxKontextPolicy.velocity

    def recording(self: FluxKontextPolicy, *args: Any, **keywords: Any) -> torch.Tensor:
        allowed.add((torch.is_grad_enabled(), torch.backends.cuda.cudnn_sdp_enabled()))
        return velocity(self, *args, **keywords)

    monkeypatch.setattr(FluxKontextPolicy, "velocity", recording)
    train_grpo(
        changed(small, iterations=1), editor=flux_folder, cases=cases, scorer=scorer, output_dir=tmp_path / "editor"
    )
    assert allowed == {(False, False), (True, False)}
