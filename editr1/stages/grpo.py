"""Stage ``grpo``: train an image editor with GRPO. The reward service scores its edits."""

from __future__ import annotations

from functools import partial

from editr1.config.grpo import GrpoConfig
from editr1.config.serve import ClientConfig
from editr1.runs.job import StageJob
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main


def body(context: StageContext) -> dict[str, float]:
    """Train the input editor on the input cases, commit the trained editor, and return the training metrics."""
    from editr1.data.types import EditCase
    from editr1.data.valid_rows import check_table
    from editr1.editor.grpo import train_grpo
    from editr1.serving.client import RewardClient
    from editr1.serving.readiness import wait_ready
    from editr1.telemetry import Interrupted

    config = context.settings(GrpoConfig)
    cases, editor = context.table("cases"), context.input("editor")
    if context.is_main:
        check_table(cases, EditCase, needs_principles=True)
    context.progress.phase("waiting for the reward service", 1)
    if not wait_ready(context.job.reward_urls, config.reward_ready_timeout_seconds, should_stop=context.should_stop):
        raise Interrupted
    _check_identity(context.job)
    context.progress.step()
    folder = context.output_folder("model")
    client_config = ClientConfig(
        max_request_items=config.score_batch_size, deadline_seconds=max(config.reward_ready_timeout_seconds, 180.0)
    )
    with RewardClient(
        context.job.reward_urls,
        config=client_config,
        expected_digest=context.job.reward_digest,
        should_stop=context.should_stop,
    ) as client:
        metrics = train_grpo(
            config,
            editor=editor,
            cases=cases,
            scorer=partial(client.score, num_traces=config.num_traces),
            output_dir=folder,
            hooks=context.hooks(),
        )
    if context.is_main:
        context.commit("model", folder, kind="editor")
    return metrics


def _check_identity(job: StageJob) -> None:
    """Raise RewardsDiffer if the model or the settings of the reward servers have changed since the stage's key was computed."""
    from editr1.serving.identity import RewardsDiffer, ask_identity

    if job.reward is None or not job.reward.settings:
        return  # Only the digest is known. The client compares it with the digest in every response.
    if lines := job.reward.differences(ask_identity(job.reward_urls, 0.0)):
        raise RewardsDiffer(
            "\n".join(
                f"the reward servers changed since the stage was prepared: {line}; start the run again"
                for line in lines
            )
        )


if __name__ == "__main__":
    main(body, "editr1.stages.grpo")
