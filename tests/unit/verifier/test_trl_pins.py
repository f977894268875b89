"""Private methods of TRL and transformers that GcpoTrainer overrides.

If a test fails after an upgrade, read what changed in the library and adapt gcpo.py.
"""

from __future__ import annotations

import inspect
import re

import pytest
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, SFTConfig
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

SIGNATURES = {
    "_get_train_sampler": ["self", "dataset"],
    "_get_eval_sampler": ["self", "eval_dataset"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate": ["self", "prompts"],
    "_compute_loss": ["self", "model", "inputs"],
    "_generate_and_score_completions": ["self", "inputs"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_overridden_methods_have_the_expected_parameters(name: str) -> None:
    method = inspect.unwrap(getattr(GRPOTrainer, name))
    assert list(inspect.signature(method).parameters) == SIGNATURES[name]


def test_log_probability_method_has_the_expected_parameters_and_result() -> None:
    method = inspect.unwrap(GRPOTrainer._get_per_token_logps_and_entropies)
    names = list(inspect.signature(method).parameters)
    assert names[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    assert re.search(r"return logps, entropies, aux_loss\b", inspect.getsource(method))


def test_trainer_loads_checkpoints_through_the_overridden_method() -> None:
    names = list(inspect.signature(Trainer._load_from_checkpoint).parameters)
    assert names == ["self", "resume_from_checkpoint", "model"]
    assert "self._load_from_checkpoint(resume_from_checkpoint)" in inspect.getsource(Trainer.train)


def test_loss_uses_the_fields_that_the_logged_ratio_is_computed_from() -> None:
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for piece in ('inputs.get("old_per_token_logps")', "completion_mask", "self._metrics[mode]"):
        assert piece in source
    assert "((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()" in source  # loss_type "grpo"


def test_old_log_probabilities_are_computed_only_for_more_than_one_pass() -> None:
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert "self.args.gradient_accumulation_steps % generate_every != 0" in source
    assert "generate_every = self.args.steps_per_generation * self.num_iterations" in source


def test_options_that_gcpo_and_sft_set_exist() -> None:
    grpo = {"loss_type", "scale_rewards", "vllm_importance_sampling_correction", "steps_per_generation", "num_iterations",
            "epsilon", "beta", "use_bias_correction_kl", "generation_kwargs", "max_completion_length"}  # fmt: skip
    assert grpo <= set(GRPOConfig.__dataclass_fields__)
    assert {"max_length", "completion_only_loss"} <= set(SFTConfig.__dataclass_fields__)
    assert "_collate_prompt_completion" in vars(DataCollatorForVisionLanguageModeling)


def test_other_columns_of_a_row_reach_the_reward_function() -> None:
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._calculate_rewards))
    assert 'keys = [key for key in inputs[0] if key not in ["prompt", "completion", "completion_ids"]]' in source
