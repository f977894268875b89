"""Check that all scores of a reward client come from one model."""

from __future__ import annotations

import threading

from editr1.errors import Editr1Error, ExitCode


class ModelMismatch(Editr1Error, RuntimeError):
    """The model of a replica is not the expected one, or not the one that computed the earlier scores."""

    exit_code = ExitCode.INPUT


class ModelOfRun:
    """The digest of the model that computes all scores. Thread-safe.

    It is ``expected`` or, if that is None, the digest in the first response.
    """

    def __init__(self, expected: str | None) -> None:
        self.digest = expected
        self._others: set[tuple[str, str]] = set()
        """URL of the replica and digest, for each response that named another model."""
        self._lock = threading.Lock()

    def accepts(self, url: str, digest: str) -> bool:
        """Return True if a response of the replica at ``url`` that names the model ``digest`` can be used.

        The first response that names another model can be damaged, so it is only refused. If the replica names that model again,
        it serves another model.

        Raises:
            ModelMismatch: The replica has named the other model before.
        """
        with self._lock:
            if self.digest is None:
                self.digest = digest
            if digest == self.digest:
                return True
            if (url, digest) in self._others:
                raise ModelMismatch(
                    f"{url} serves model {digest}, but this run uses the scores of model {self.digest}; "
                    "serve one model on all replicas"
                )
            self._others.add((url, digest))
            return False
