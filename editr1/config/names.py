"""The rule for the names of runs, stages and Helm releases.

The run file, the option ``--name``, the schema of the EditRun resource and the charts all use this rule.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

MAX_NAME_LENGTH: Final = 45
"""Maximum length of a name in characters. The objects of a release are named after it with a suffix, such as "-master-0"
for the pods of a job and 17 characters for the pods of a Deployment, and a pod name may have at most 63 characters."""
NAME_PATTERN: Final = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"
"""Pattern of a name: an RFC 1035 label, because Kubernetes rejects a Service whose name begins with a digit."""
OPTIONAL_PATTERN: Final = r"^([a-z]([a-z0-9-]*[a-z0-9])?)?$"
"""The same pattern, or an empty string."""
ALLOWED: Final = f"use at most {MAX_NAME_LENGTH} lower-case letters, digits and hyphens, with a letter first and no hyphen at the end"
"""What a name may be, for messages."""


def name_fault(name: str) -> str | None:
    """Return what is wrong with the name of a run, stage or release, and what is allowed; None if the name is valid."""
    if not name:
        fault = "is empty"
    elif other := re.search(r"[^a-z0-9-]", name):
        fault = f"contains {other.group()!r}"
    elif not name[0].isalpha():
        fault = f"begins with {name[0]!r}"
    elif name[-1] == "-":
        fault = "ends with '-'"
    elif len(name) > MAX_NAME_LENGTH:
        fault = f"has {len(name)} characters"
    else:
        return None
    return f"the name {fault}; {ALLOWED}"


def _checked(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(fault)
    return name


def _checked_if_set(name: str) -> str:
    return _checked(name) if name else name


Name = Annotated[
    str,
    AfterValidator(_checked),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": NAME_PATTERN}),
]
"""Name of a run, stage or release."""
OptionalName = Annotated[
    str,
    AfterValidator(_checked_if_set),
    WithJsonSchema({"type": "string", "maxLength": MAX_NAME_LENGTH, "pattern": OPTIONAL_PATTERN}),
]
"""Name of a run, stage or release, or an empty string if none is set."""
Namespace = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
"""Name of a Kubernetes namespace. Unlike the name of a run, it may begin with a digit."""
