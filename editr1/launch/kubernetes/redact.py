"""Hide secrets in Kubernetes objects and in text. All functions are pure.

Environment variables, program arguments and annotations are hidden unless their name is on a list of harmless names,
because a list of all names of secrets cannot be complete. In free text, the usual forms of secrets are hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

_SECRET = (
    r"secret|passw(?:or)?d|passphrase|pwd|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization"
    r"|signature|cookie|(?<![a-z])(?:pass|auth|key|sig)(?![a-z])"
)
_SECRET_NAME = re.compile(rf"(?i){_SECRET}")
_REFERENCE_NAME = re.compile(r"(?i)(?:_env|name|ref|field|existing_?secret|^key|_key_id)$")
"""Names of settings that contain the name of a secret or of a variable, not a secret."""
_HARMLESS_VARIABLE = re.compile(
    r"EDITR1_(?:RUN|STAGE|STORE|JOB|LOG|RUNS_DIR|CLUSTER_FILE|REWARD_SERVER|S3_ENDPOINT|S3_REGION|SOURCE|SPANS)"
    r"|EDITR1_\w+__\w+|(?:OMP|MKL|NCCL|CUDA|NVIDIA|GLOO|PYTORCH|TORCH|PET)_\w+|PYTHON\w+"
    r"|HF_(?:HOME|HUB_OFFLINE|HUB_CACHE|DATASETS_OFFLINE)|TRANSFORMERS_OFFLINE|TOKENIZERS_PARALLELISM"
    r"|OTEL_(?:SERVICE_NAME|SDK_DISABLED|TRACES_EXPORTER|EXPORTER_OTLP_(?:TRACES_)?(?:ENDPOINT|PROTOCOL))"
    r"|(?:POD|NODE)_(?:NAME|NAMESPACE|IP)|RANK|LOCAL_RANK|GROUP_RANK|WORLD_SIZE|MASTER_(?:ADDR|PORT)"
    r"|PATH|HOME|HOSTNAME|LANG|LC_\w+|TZ|TMPDIR|TERM|COLUMNS|NO_COLOR|XDG_CACHE_HOME|LD_LIBRARY_PATH"
)
_HARMLESS_FLAG = re.compile(
    r"-[mu]|--(?:model|port|host|dtype|seed|task|served-model-name|tensor-parallel-size|pipeline-parallel-size"
    r"|data-parallel-size|max-[a-z-]+|min-[a-z-]+|gpu-memory-utilization|limit-mm-per-prompt|generation-config"
    r"|mm-processor-kwargs|enforce-eager|trust-remote-code|no-[a-z-]+|enable-[a-z-]+|disable-[a-z-]+|nnodes|nproc-per-node"
    r"|node-rank|standalone|rdzv-backend|rdzv-endpoint|job|config|namespace|watch-namespace|liveness|verbose)"
)
_HARMLESS_ANNOTATION = re.compile(
    r"(?:editr1\.dev|meta\.helm\.sh|deployment\.kubernetes\.io|training\.kubeflow\.org|kueue\.x-k8s\.io)/.*"
)
_HARMLESS_PARAMETER = re.compile(
    r"(?i)x-amz-(?:date|algorithm|expires|signedheaders)|list-type|prefix|delimiter|uploads|uploadid|partnumber|max-keys|page"
    r"|limit|timeout|timeoutseconds|watch|version|api-version|sv|fieldselector|labelselector"
)
_KEY_SHAPES = (
    r"sk-[\w-]{12,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{12,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|eyJ[\w-]{10,}\.[\w.-]+"
)
_QUOTE = r"\\*[\"']"
_NUMBER = re.compile(r"-?\d{1,7}(?:\.\d+)?")

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/\s@\"']+@")
_PARAMETER = re.compile(r"([?&;]([A-Za-z0-9._~-]{1,60})=)([^&\s\"'<>\\)]+)")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{6,}")
_KEY_SHAPE = re.compile(rf"(?<![\w-])(?:{_KEY_SHAPES})")
_NAMED_VALUE = re.compile(
    rf"(name{_QUOTE}\s*:\s*{_QUOTE}([\w.-]{{1,80}}){_QUOTE}\s*,\s*{_QUOTE}value{_QUOTE}\s*:\s*{_QUOTE})([^\"'\\]*)"
)
_SECRET_VALUE = re.compile(
    rf"(?i)((?:{_SECRET})[\w-]{{0,40}}(?:{_QUOTE})?\s*[:=]\s*)"
    rf"(\\*\"[^\"\n]*\"|\\*'[^'\n]*'|(?:(?:bearer|basic)\s+)?[^\s\"',&}}\]\\]+)"
)
_SECRET_PAIR = re.compile(rf"(?i)((?:{_SECRET})[\w-]{{0,40}}{_QUOTE}\s*,\s*)({_QUOTE}[^\"'\n]*{_QUOTE})")
_SECRET_FLAG = re.compile(rf"(?i)(--?[\w-]{{0,40}}(?:{_SECRET})[\w-]{{0,40}}\s+)(?!-)(\S+)")


def redacted(value: Any) -> Any:
    """Return a copy of a JSON value in which every value that may be secret is replaced with ``[redacted]``.

    - Environment variables (``{"name", "value"}``, or a mapping under ``env``), program arguments (a list under ``args`` or
      ``command``) and annotations are hidden unless their name is known to be harmless.
    - Every text below a key whose name suggests a secret is hidden. The data of a Secret is hidden.
    - Text that contains JSON is treated in the same way, and other text as in :func:`redacted_text`.
    """
    if isinstance(value, Mapping):
        return _redacted_mapping(value)
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return _redacted_string(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    """Return ``text`` with secrets in the usual forms removed.

    These are credentials and parameters of URLs, private keys, keys of well-known services, values of fields,
    arguments and headers whose name suggests a secret, and environment variables that are not known to be harmless.
    """
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _USER_IN_URL.sub(rf"\g<1>{REDACTED}@", text)
    text = _PARAMETER.sub(lambda m: m[0] if _HARMLESS_PARAMETER.fullmatch(m[2]) else m[1] + REDACTED, text)
    text = _NAMED_VALUE.sub(lambda m: m[0] if _HARMLESS_VARIABLE.fullmatch(m[2]) else m[1] + REDACTED, text)
    for pattern in (_SECRET_VALUE, _SECRET_PAIR, _SECRET_FLAG):
        text = pattern.sub(lambda m: m[0] if _NUMBER.fullmatch(m[2]) else m[1] + REDACTED, text)
    return _KEY_SHAPE.sub(REDACTED, _BEARER.sub(rf"\g<1>{REDACTED}", text))


def _redacted_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    if "value" in value and isinstance(value.get("name"), str):
        harmless = _HARMLESS_VARIABLE.fullmatch(value["name"])
        return {**value, "value": redacted(value["value"]) if harmless else REDACTED}
    is_secret = value.get("kind") == "Secret"
    return {
        key: _hidden(item) if is_secret and key in ("data", "stringData") else _redacted_item(str(key), item)
        for key, item in value.items()
    }


def _redacted_item(key: str, item: Any) -> Any:
    if isinstance(item, Mapping) and key in ("env", "annotations"):
        harmless = _HARMLESS_VARIABLE if key == "env" else _HARMLESS_ANNOTATION
        return {name: redacted(text) if harmless.fullmatch(name) else _hidden(text) for name, text in item.items()}
    if isinstance(item, list | tuple) and (key == "command" or key.lower().endswith("args")):
        return _redacted_arguments(item)
    if _SECRET_NAME.search(key) and not _REFERENCE_NAME.search(key):
        return _hidden(item)
    return redacted(item)


def _redacted_arguments(arguments: Sequence[Any]) -> list[Any]:
    shown: list[Any] = []
    hide_next = False
    for argument in arguments:
        if not isinstance(argument, str):
            shown.append(argument)
            continue
        flag, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            harmless = _HARMLESS_FLAG.fullmatch(flag) is not None
            shown.append(redacted(argument) if harmless or not equals else f"{flag}={REDACTED}")
            hide_next = not harmless and not equals
        else:
            shown.append(REDACTED if hide_next else redacted(argument))
            hide_next = False
    return shown


def _hidden(value: Any) -> Any:
    """Return ``value`` with every text in it hidden. Numbers, for example ``max_tokens``, are not hidden."""
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    return REDACTED if isinstance(value, str) and value else value


def _redacted_string(text: str) -> str:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.dumps(redacted(json.loads(text)))
        except (ValueError, RecursionError):
            pass
    return redacted_text(text)
