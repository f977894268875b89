"""Former names of settings. A former name is rejected with an error that gives the current name."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel


class Renamed(NamedTuple):
    """The current name of a setting, and an explanation if more than the name changed."""

    new: str
    reason: str = ""

    @property
    def message(self) -> str:
        """Last part of the error message, which follows the former name: the current name and an explanation."""
        return f"renamed to {self.new}" + (f" ({self.reason})" if self.reason else "")


class Removed(NamedTuple):
    """A former setting that was removed. No current setting has the same meaning."""

    instead: str
    """Instruction in the error message, such as what to use instead."""

    @property
    def message(self) -> str:
        """Last part of the error message, which follows the former name: what to do instead."""
        return f"removed; {self.instead}"


_PRECISION = Renamed(
    "precision",
    "set it to fp32 or bf16-mixed; pure bfloat16 weights do not learn: in 30 steps at a learning rate of 1e-6, only 0.8 %"
    " of them change, compared with 94 % of fp32 weights",
)
_WINDOW = Renamed("sde_window_range", "set it to [first, end]; step first is in the range, and step end is not")

RENAMED: dict[str, dict[str, Renamed | Removed]] = {
    "VerifierTraining": {
        "weights": _PRECISION,
        "autocast": Renamed("precision", "set precision: bf16-mixed instead of autocast: true"),
        "max_tokens": Renamed("max_length"),
        "schedule": Renamed("lr_schedule"),
        "grad_clip": Renamed("max_grad_norm"),
        "micro_batch": Renamed("micro_batch_size"),
    },
    "SftConfig": {"steps": Renamed("max_steps"), "picked_from": Renamed("best_of_n")},
    "GcpoConfig": {"traces": Renamed("num_traces"), "epsilon": Renamed("clip_range"), "pairs": Renamed("max_pairs")},
    "GrpoConfig": {
        "steps": Renamed("num_inference_steps"),
        "guidance": Renamed("guidance_scale"),
        "window_size": Renamed("sde_window_size"),
        "window_first": _WINDOW,
        "window_last": _WINDOW,
        "window_scope": Renamed("sde_window_scope"),
        "clip": Renamed("clip_range"),
        "grad_clip": Renamed("max_grad_norm"),
        "micro_batch": Renamed("micro_batch_size"),
        "weights": _PRECISION,
        "autocast": Renamed("precision", "set precision: bf16-mixed instead of autocast: true"),
        "storage_dtype": Renamed("trajectory_dtype"),
        "traces": Renamed("num_traces"),
        "reward_batch": Renamed("score_batch_size"),
        "reward_wait_s": Renamed("reward_ready_timeout_seconds"),
        "max_failed_share": Renamed("max_failed_fraction"),
        "max_failed": Renamed("max_failed_fraction"),
    },
    "EvaluateConfig": {
        "pairs": Renamed("max_pairs"),
        "editor_cases": Renamed("max_cases"),
        "truth": Renamed("ground_truth"),
        "traces": Renamed("num_traces"),
        "score_batch": Renamed("score_batch_size"),
        "edit_batch": Renamed("sample_batch_size"),
        "max_failed": Renamed("max_failed_fraction"),
        "max_failed_share": Renamed("max_failed_fraction"),
        "steps": Renamed("num_inference_steps"),
        "guidance": Renamed("guidance_scale"),
        "max_tokens": Renamed("max_new_tokens"),
        "gallery": Renamed("gallery_size"),
        "benchmarks": Removed("pass each benchmark as an input of the stage"),
        "protocol": Removed("use public.protocol"),
        "epsilon": Removed("use public.epsilon"),
    },
    "EndpointConfig": {
        "retries": Renamed("max_retries"),
        "timeout_s": Renamed("timeout_seconds"),
        "deadline_s": Renamed("deadline_seconds"),
    },
    "CurateConfig": {
        "judge": Renamed("difficulty_filter"),
        "traces": Renamed("num_traces"),
        "choose": Renamed("num_labelled_cases"),
        "hard_share": Renamed("hard_fraction"),
        "attempts": Renamed("max_attempts"),
        "examples": Renamed("num_examples"),
        "max_failed_share": Renamed("max_failed_fraction"),
        "experts": Removed(
            "set the input experts of the stage to the folder that contains the file, as path:FOLDER, and name the file experts.jsonl"
        ),
    },
    "HolisticConfig": {
        "quality": Removed("delete it, since the holistic variant has only the questions follow and keep")
    },
    "CurateStageConfig": {
        "judge": Renamed("labeller"),
        "world": Renamed("shapes"),
        "test_share": Renamed("test_fraction"),
    },
    "OpenAIEngineConfig": {"timeout_s": Renamed("timeout_seconds")},
    "ServeConfig": {
        "max_tokens": Renamed("max_new_tokens"),
        "max_batch": Renamed("max_batch_size"),
        "queue_items": Renamed("max_queued_items"),
        "max_items": Renamed("max_request_items"),
        "deadline_s": Renamed("deadline_seconds"),
        "body_timeout_s": Renamed("body_timeout_seconds"),
        "drain_s": Renamed("drain_timeout_seconds"),
    },
    "ClientConfig": {
        "deadline_s": Renamed("deadline_seconds"),
        "attempt_timeout_s": Renamed("attempt_timeout_seconds"),
        "connect_timeout_s": Renamed("connect_timeout_seconds"),
        "resolve_s": Renamed("resolve_interval_seconds"),
        "backoff_s": Renamed("backoff_seconds"),
        "batch_items": Renamed("max_request_items"),
    },
    "Budget": {
        "traces": Renamed("num_traces"),
        "batch": Renamed("batch_size"),
        "sft_warmup": Renamed("sft_warmup_steps"),
        "picked_steps": Renamed("best_of_n_steps"),
        "more_steps": Renamed(
            "best_of_n_steps", 'the SFT baseline "longer SFT" takes sft_steps.verified additional steps'
        ),
        "processes": Removed("delete it, since every training run of a reproduction uses one process"),
        "more_learning_rate": Renamed("second_sft_learning_rate"),
        "max_failed": Renamed("max_failed_fraction"),
    },
    "CandidateSettings": {"several": Renamed("multiple_faults_rate")},
    "MemberSettings": {"flips": Renamed("flip_rate"), "follow_only": Renamed("follow_only_weight")},
    "LabellerSettings": {"gold_flips": Renamed("gold_flip_rate")},
    "AnnotatorSettings": {"flips": Renamed("flip_rate"), "same_gap": Renamed("tie_threshold")},
    "StageSpec": {
        "deadline_s": Renamed("deadline_seconds"),
        "pending_s": Renamed("pending_timeout_seconds"),
    },
    "ClusterConfig": {"ready_seconds": Renamed("reward_ready_timeout_seconds")},
    "StageValues": {
        "priorityClass": Renamed("priorityClassName"),
        "runtimeClass": Renamed("runtimeClassName"),
        "serviceAccount": Renamed("serviceAccountName"),
        "user": Renamed("runAsUser"),
    },
    "TelemetryValues": {"publishSeconds": Renamed("publishIntervalSeconds")},
    "TrainingValues": {
        "queue": Renamed("queueName"),
        "graceSeconds": Renamed("terminationGracePeriodSeconds"),
        "ttlSeconds": Renamed("ttlSecondsAfterFinished"),
    },
    "RewardValues": {"startupSeconds": Renamed("startupTimeoutSeconds")},
    "KedaValues": {"pollingSeconds": Renamed("pollingIntervalSeconds")},
    "OperatorValues": {"priorityClass": Renamed("priorityClassName"), "user": Renamed("runAsUser")},
}
"""Former names of settings, keyed by the name of the settings class. The former names of a class also apply to its subclasses.
Former names of chart values are in camelCase."""


def renamed(model: type[BaseModel], name: str) -> Renamed | Removed | None:
    """Return the replacement of the former setting ``name`` of ``model``, or None if ``name`` is not a former name."""
    tables = (RENAMED.get(base.__name__, {}) for base in model.__mro__)
    return next((table[name] for table in tables if name in table), None)
