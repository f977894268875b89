"""The six kinds of stage: what each reads, writes and is configured by."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from editr1.config.base import Settings


class Kind(StrEnum):
    """The stages of Edit-R1, in the order of the paper."""

    CURATE = "curate"
    SFT = "sft"
    GCPO = "gcpo"
    SERVE = "serve"
    GRPO = "grpo"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Input:
    """A named input of a kind. ``hub`` says whether a model of the hub may stand for an artifact.

    ``holds`` is a file, or a pattern of files, without which a folder cannot be what is meant.
    """

    name: str
    what: str
    required: bool = True
    hub: bool = False
    holds: str = ""


def _table(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, holds="*.parquet")


def _verifier(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, hub=True, holds="config.json")


def _editor(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, hub=True, holds="model_index.json")


def _any(_names: Collection[str]) -> list[str]:
    return []


def _sft_inputs(names: Collection[str]) -> list[str]:
    return [] if ("rows" in names) != ("pairs" in names) else ["an sft stage learns from rows or from pairs: give one"]


def _evaluate_inputs(names: Collection[str]) -> list[str]:
    verifiers, editors = {"sft", "rl"} & set(names), {"before", "after"} & set(names)
    faults = []
    if not verifiers | editors:
        faults.append("nothing to evaluate: give a verifier (sft, rl) or an editor (before, after)")
    if verifiers - ({"rl"} if editors else set()) and "pairs" not in names:
        faults.append("a verifier is judged on pairs, which are missing")  # rl may be there to score the editors' edits
    if editors and "cases" not in names:
        faults.append("an editor is judged on cases, which are missing")
    return faults


@dataclass(frozen=True)
class KindInfo:
    """A kind's contract. ``settings`` is ``module:Class``; it is imported only when a config is validated.

    ``extras`` are what pip must have installed where the stage runs. ``rule`` says what is wrong with the names of the
    inputs that are given, beyond one that is required and missing.
    """

    kind: Kind
    title: str
    settings: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    extras: tuple[str, ...]
    distributed: bool = False
    service: bool = False
    needs_service: bool = False
    rule: Callable[[Collection[str]], list[str]] = _any

    def settings_model(self) -> type[Settings]:
        """The pydantic model of this kind's ``config`` section."""
        module, _, name = self.settings.partition(":")
        model: type[Settings] = getattr(importlib.import_module(module), name)
        return model

    def input(self, name: str) -> Input | None:
        """The declared input of that name."""
        return next((item for item in self.inputs if item.name == name), None)


KINDS: dict[Kind, KindInfo] = {
    info.kind: info
    for info in (
        KindInfo(
            Kind.CURATE,
            "cases, principles and verified traces",
            "editr1.config.curate_stage:CurateStageConfig",
            (Input("data", "imported pictures (editr1 data import); without it the shapes world is drawn", False),),
            ("rows", "pairs", "pairs-test", "cases", "cases-test"),
            ("curate",),
        ),
        KindInfo(
            Kind.SFT,
            "the verifier learns to write verified traces",
            "editr1.config.sft:SftConfig",
            (
                _table("rows", "SFT rows", False),
                _table("pairs", "in place of rows: pairs that pick among the model's own traces", False),
                _verifier("model", "base verifier"),
            ),
            ("model",),
            ("verifier",),
            distributed=True,
            rule=_sft_inputs,
        ),
        KindInfo(
            Kind.GCPO,
            "the verifier learns from human preference",
            "editr1.config.gcpo:GcpoConfig",
            (_table("pairs", "preference pairs"), _verifier("model", "verifier after SFT")),
            ("model",),
            ("verifier",),
            distributed=True,
        ),
        KindInfo(
            Kind.SERVE,
            "the verifier answers as a reward service",
            "editr1.config.serve:ServeConfig",
            (_verifier("model", "verifier"),),
            (),
            ("serve",),
            service=True,
        ),
        KindInfo(
            Kind.GRPO,
            "the editor learns from the reward",
            "editr1.config.grpo:GrpoConfig",
            (_table("cases", "edit cases with principles"), _editor("editor", "editor to train")),
            ("model",),
            ("editor", "serve"),
            distributed=True,
            needs_service=True,
        ),
        KindInfo(
            Kind.EVALUATE,
            "accuracy of the verifiers, quality of the editors",
            "editr1.config.evaluate:EvaluateConfig",
            (
                _table("pairs", "held-out preference pairs, for the verifiers", False),
                _table("cases", "held-out edit cases with principles, for the editors", False),
                _verifier("sft", "verifier after SFT", False),
                _verifier("rl", "verifier after GCPO; the one that scores edits", False),
                _editor("before", "editor before RL", False),
                _editor("after", "editor after RL", False),
                Input("editscore", "EditScore's EditReward-Bench", False),
                Input("tiger", "TIGER's EditReward-Bench", False),
                Input("gedit", "GEdit-Bench, with the judge's prompts.json", False),
                Input("imgedit", "ImgEdit-Bench", False),
            ),
            ("evaluation",),
            ("verifier", "editor", "serve", "curate"),
            rule=_evaluate_inputs,
        ),
    )
}
