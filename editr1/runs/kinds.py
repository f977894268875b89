"""The six kinds of stages with their inputs, outputs and settings models."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from editr1.config.base import Settings


class Kind(StrEnum):
    """The kinds of stages, in the order in which they usually run."""

    CURATE = "curate"
    SFT = "sft"
    GCPO = "gcpo"
    SERVE = "serve"
    GRPO = "grpo"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Input:
    """An input of a kind of stage.

    Attributes:
        name: Name of the input.
        what: Description of the input.
        required: Whether the input must be given.
        hub: Whether a model on the Hugging Face hub is accepted.
        artifact: Kind of the artifacts that the input accepts, as in their manifests, such as "rows".
        expected_file: Name or glob pattern of a file that a valid input contains; empty if this is not checked.
    """

    name: str
    what: str
    required: bool = True
    hub: bool = False
    artifact: str = "import"
    expected_file: str = ""

    def fault(self, artifact: str) -> str | None:
        """Return what is wrong with an artifact of this kind as the input; None if it is accepted.

        Artifacts that no stage produces, such as those of ``editr1 artifacts push --kind``, are accepted here.
        """
        if artifact == self.artifact or artifact not in CONTENTS:
            return None
        return f"contains {CONTENTS[artifact]}, but this input is: {self.what}"


CONTENTS = {
    "rows": "SFT rows",
    "pairs": "preference pairs",
    "cases": "edit cases",
    "verifier": "a verifier",
    "editor": "an editor",
    "evaluation": "an evaluation",
    "checkpoint": "a checkpoint of a training",
}
"""Contents of the artifacts that stages produce, by the kind in their manifests."""
SHIPPED = {"shapes-verifier": "verifier", "shapes-verifier-small": "verifier", "shapes-editor": "editor"}
"""Kind of each checkpoint that is part of this package."""


def _rows(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, artifact="rows", expected_file="*.parquet")


def _pairs(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, artifact="pairs", expected_file="*.parquet")


def _cases(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, artifact="cases", expected_file="*.parquet")


def _verifier(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, hub=True, artifact="verifier", expected_file="config.json")


def _editor(name: str, what: str, required: bool = True) -> Input:
    return Input(name, what, required, hub=True, artifact="editor", expected_file="model_index.json")


_EXPERTS = Input(
    "experts",
    "principles that experts wrote, as examples; without it, the examples of this package are used",
    False,
    expected_file="experts.jsonl",
)


def _no_rule(_names: Collection[str]) -> list[str]:
    return []


def _sft_inputs(names: Collection[str]) -> list[str]:
    return (
        []
        if ("rows" in names) != ("pairs" in names)
        else ["an sft stage requires either rows or pairs: set exactly one of these inputs"]
    )


def _evaluate_inputs(names: Collection[str]) -> list[str]:
    verifiers, editors = {"sft", "rl"} & set(names), {"before", "after"} & set(names)
    faults = []
    if not verifiers | editors:
        faults.append(
            "there is nothing to evaluate: set a verifier (input sft or rl) or an editor (input before or after)"
        )
    if verifiers - ({"rl"} if editors else set()) and "pairs" not in names:
        faults.append(
            "pairs: missing; set this input to the preference pairs on which verifiers are evaluated"
        )  # If editors are evaluated, the input rl may only serve to score their edits.
    if editors and "cases" not in names:
        faults.append("cases: missing; set this input to the edit cases on which editors are evaluated")
    return faults


@dataclass(frozen=True)
class KindInfo:
    """Description of a kind of stage: its inputs, outputs, settings and dependencies.

    Attributes:
        kind: Name of the kind.
        title: What a stage of this kind does.
        settings: Class of the settings as ``module:Class``. It is imported only when a config is validated.
        inputs: Inputs of the stage.
        outputs: Its outputs: the kind of each artifact by the name of the output.
        extras: Optional dependency groups of this package that the stage needs.
        distributed: Whether the stage can use several processes.
        service: Whether the stage is a long-running service.
        needs_service: Whether the stage needs a reward service.
        rule: Function that receives the names of the given inputs and returns error messages about invalid combinations. Missing
            required inputs are checked separately.
    """

    kind: Kind
    title: str
    settings: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, str]
    extras: tuple[str, ...]
    distributed: bool = False
    service: bool = False
    needs_service: bool = False
    rule: Callable[[Collection[str]], list[str]] = _no_rule

    def settings_model(self) -> type[Settings]:
        """Return the settings model of this kind's ``config`` section."""
        module, _, name = self.settings.partition(":")
        model: type[Settings] = getattr(importlib.import_module(module), name)
        return model

    def input(self, name: str) -> Input | None:
        """Return the input with that name; None if the kind has none."""
        return next((item for item in self.inputs if item.name == name), None)


KINDS: dict[Kind, KindInfo] = {
    info.kind: info
    for info in (
        KindInfo(
            Kind.CURATE,
            "create edit cases with principles, and verified traces",
            "editr1.config.curate_stage:CurateStageConfig",
            (
                Input(
                    "data", "imported images (editr1 data import); without it, the shapes dataset is generated", False
                ),
                _EXPERTS,
            ),
            {"rows": "rows", "pairs": "pairs", "pairs-test": "pairs", "cases": "cases", "cases-test": "cases"},
            ("curate",),
        ),
        KindInfo(
            Kind.SFT,
            "train the verifier on verified traces",
            "editr1.config.sft:SftConfig",
            (
                _rows("rows", "SFT rows", False),
                _pairs(
                    "pairs",
                    "preference pairs, as an alternative to rows: the best traces that the model samples for these pairs become SFT rows",
                    False,
                ),
                _verifier("model", "base verifier"),
            ),
            {"model": "verifier"},
            ("verifier",),
            distributed=True,
            rule=_sft_inputs,
        ),
        KindInfo(
            Kind.GCPO,
            "train the verifier on human preference pairs",
            "editr1.config.gcpo:GcpoConfig",
            (_pairs("pairs", "preference pairs"), _verifier("model", "verifier after SFT")),
            {"model": "verifier"},
            ("verifier",),
            distributed=True,
        ),
        KindInfo(
            Kind.SERVE,
            "serve the verifier as a reward service",
            "editr1.config.serve:ServeConfig",
            (_verifier("model", "verifier"),),
            {},
            ("serve",),
            service=True,
        ),
        KindInfo(
            Kind.GRPO,
            "train the editor with the verifier's scores as reward",
            "editr1.config.grpo:GrpoConfig",
            (_cases("cases", "edit cases with principles"), _editor("editor", "editor to train")),
            {"model": "editor"},
            ("editor", "serve"),
            distributed=True,
            needs_service=True,
        ),
        KindInfo(
            Kind.EVALUATE,
            "evaluate verifiers and editors on held-out data",
            "editr1.config.evaluate:EvaluateConfig",
            (
                _pairs("pairs", "held-out preference pairs, to evaluate verifiers", False),
                _cases("cases", "held-out edit cases with principles, to evaluate editors", False),
                _verifier("sft", "verifier after SFT", False),
                _verifier("rl", "verifier after GCPO; it also scores the editors' edits", False),
                _editor("before", "editor before RL", False),
                _editor("after", "editor after RL", False),
                Input("editscore", "EditScore's EditReward-Bench", False),
                Input("tiger", "TIGER's EditReward-Bench", False),
                Input("gedit", "GEdit-Bench, with the file prompts.json for its judge", False),
                Input("imgedit", "ImgEdit-Bench", False),
                _EXPERTS,
            ),
            {"evaluation": "evaluation"},
            ("verifier", "editor", "serve", "curate"),
            rule=_evaluate_inputs,
        ),
    )
}
