"""Load the weights of a model, and reject checkpoints that are incomplete or do not match the model.

For such checkpoints, transformers and diffusers only log a warning: they initialize missing tensors at random and
skip unexpected tensors. :func:`load_weights` is used for verifiers and for each component of an editor pipeline.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from torch import Tensor, nn

from editr1.artifacts.weights import UnusableModel, first_of

log = logging.getLogger("editr1.verifier")

_ADAPTER_CONFIG: Final = "adapter_config.json"
_COMPLETE: Final = "use a complete checkpoint of this architecture"


def load_weights(model_class: Any, source: str | Path, **options: Any) -> Any:
    """Load a model with ``model_class.from_pretrained`` from safetensors, and check that the weights are complete.

    An adapter in a folder with complete weights is not applied, because such weights usually contain the adapter
    already. In this case, a warning is logged.

    Args:
        model_class: model class of transformers or diffusers.
        source: folder or Hugging Face Hub name.
        options: further arguments of ``from_pretrained``.

    Raises:
        UnusableModel: the model cannot be loaded, tensors are missing, unexpected or have the wrong shape, a tensor
            contains NaN or infinity, or the folder contains only an adapter.
    """
    with explain_load_errors(source), _without_adapter(Path(source)) as folder:
        model, info = model_class.from_pretrained(
            str(folder) if folder else str(source), use_safetensors=True, output_loading_info=True, **options
        )
    if faults := _faults(info):
        raise UnusableModel(
            f"{source}: the weights do not match {model_class.__name__}: {'; '.join(faults)}; {_COMPLETE}"
        )
    require_finite(model, source)
    return model


def require_finite(model: nn.Module, source: str | Path) -> None:
    """Raise UnusableModel if a weight of ``model``, which was loaded from ``source``, contains NaN or infinity."""
    weights: Mapping[str, Tensor] = model.state_dict()
    bad = [name for name, weight in weights.items() if weight.is_floating_point() and not bool(weight.isfinite().all())]
    if bad:
        raise UnusableModel(
            f"{source}: {len(bad)} of {len(weights)} tensors contain NaN or infinity, for example {first_of(bad)}; "
            "the checkpoint is damaged, so use a different checkpoint"
        )


def check_adapter(result: Any, source: str | Path) -> None:
    """Check the result of peft's ``load_adapter``.

    Raises:
        UnusableModel: adapter tensors are missing or unexpected.
    """
    info = {"missing_keys": result.missing_keys, "unexpected_keys": result.unexpected_keys}
    if faults := _faults(info):
        raise UnusableModel(
            f"{source}: the adapter does not match the model: {'; '.join(faults)}; use the adapter that belongs to this model"
        )


@contextmanager
def explain_load_errors(source: str | Path) -> Iterator[None]:
    """Convert the exceptions that libraries raise for an unusable folder ``source`` to UnusableModel.

    Errors of the operating system, and of models on the Hugging Face Hub, are not converted.
    """
    try:
        yield
    except UnusableModel:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        system = isinstance(error, OSError) and error.errno is not None
        if system or hasattr(error, "exit_code") or not Path(source).is_dir():
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UnusableModel(f"{source}: the model cannot be loaded: {reason[:300]}; {_COMPLETE}") from error


def _faults(info: Mapping[str, Any]) -> list[str]:
    faults = []
    if missing := sorted(info["missing_keys"]):
        faults.append(f"{_tensors(missing)} missing, first {first_of(missing)}")
    if unexpected := sorted(info["unexpected_keys"]):
        faults.append(f"{_tensors(unexpected)} not part of the model, first {first_of(unexpected)}")
    if mismatched := sorted(info.get("mismatched_keys", ())):
        shapes = [f"{name} ({list(found)} instead of {list(expected)})" for name, found, expected in mismatched]
        faults.append(f"{_tensors(shapes)} of another shape, first {first_of(shapes)}")
    if errors := info.get("error_msgs"):
        faults.append(str(errors[0]).strip()[:300])
    return faults


def _tensors(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{' is' if len(names) == 1 else 's are'}"


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path | None]:
    """Context manager that yields a folder with the files of ``folder`` except its adapter, or None if ``folder`` has no adapter.

    transformers would apply the adapter to the weights in the same folder.
    """
    if not (folder / _ADAPTER_CONFIG).is_file():
        yield None
        return
    if not any(folder.glob("model*.safetensors")):
        raise UnusableModel(
            f"{folder}: contains an adapter ({_ADAPTER_CONFIG}) but not the weights of its base model; merge the adapter into"
            " its base model and use the folder of the merged model"
        )
    log.warning(
        "%s: the adapter in this folder is not applied, because the folder has complete weights; if they do not contain the"
        " adapter, merge it first",
        folder,
    )
    with tempfile.TemporaryDirectory() as view:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                (Path(view) / path.name).symlink_to(path.resolve())
        yield Path(view)
