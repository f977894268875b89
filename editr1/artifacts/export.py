"""Write the folder of an artifact so that its content depends only on what the stage computed.

The digest of an artifact must be the same for every attempt of a stage, on every machine with the same versions of the
libraries. Every export therefore starts with an empty folder (:func:`empty_folder`), and the files that transformers,
diffusers and peft write are rid of what describes the process that wrote them (:func:`remove_origin`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

_ADAPTER: Final = "adapter_config.json"
_CONFIGS: Final = (
    "config.json",
    "model_index.json",
    "generation_config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    _ADAPTER,
)
_NAMES: Final = ("_name_or_path", "name_or_path", "_commit_hash")
"""Fields with the path or the revision from which the process loaded a model."""
_ORDERLESS: Final = ("target_modules", "modules_to_save", "exclude_modules")
"""Fields of an adapter that are sets. peft writes them in an order that differs between processes."""


def empty_folder(folder: Path) -> Path:
    """Remove everything in ``folder``, create it if necessary, and return it.

    Call it immediately before an export, so that files of an earlier, killed attempt do not become part of the artifact.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def remove_origin(folder: Path) -> None:
    """Remove from the configuration files below ``folder`` what depends on the process that wrote them.

    These are paths of the loaded models, the setting ``local_files_only`` (transformers derives it from the environment
    variable ``HF_HUB_OFFLINE``), the order of sets, and the model cards that peft writes. Versions of libraries remain.
    """
    for name in _CONFIGS:
        for file in sorted(folder.rglob(name)):
            _rewrite(file)
    for adapter in sorted(folder.rglob(_ADAPTER)):
        (adapter.parent / "README.md").unlink(missing_ok=True)


def _rewrite(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    config = json.loads(text)
    if not isinstance(config, dict):
        return
    changed = _without_origin(config)
    # This is how the libraries write their files. They escape other characters than ASCII in some of them.
    written = json.dumps(changed, indent=2, sort_keys=True, ensure_ascii=text.isascii()) + "\n"
    if written != text:
        file.write_text(written, encoding="utf-8")


def _without_origin(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_origin(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_origin(item) for name, item in value.items() if name not in _NAMES}
    for name in _ORDERLESS:
        if isinstance(kept.get(name), list):
            kept[name] = sorted(kept[name])
    if "base_model_name_or_path" in kept:
        kept["base_model_name_or_path"] = None
    if "local_files_only" in kept:
        kept["local_files_only"] = False
    return kept
