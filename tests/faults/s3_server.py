"""Access of a campaign to a real S3 server: one bucket, in which each fault has a prefix of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.store import StoreConfig

BUCKET = "faults"


@dataclass(frozen=True)
class S3Access:
    """Address and credentials of the server."""

    endpoint: str
    access_key: str
    secret_key: str

    def client(self) -> Minio:
        """Return a client that does not go through a relay."""
        return Minio(self.endpoint, self.access_key, self.secret_key, secure=False)

    def fill(self, name: str, store: Path) -> str:
        """Copy a folder store to the prefix ``name``, and return the address of that store."""
        client = self.client()
        files = [path for path in store.rglob("*") if path.is_file() and ".tmp" not in path.parts]

        def upload(path: Path) -> None:
            client.fput_object(BUCKET, f"{name}/{path.relative_to(store).as_posix()}", str(path))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(upload, files))
        return f"s3://{BUCKET}/{name}"

    def open(self, name: str) -> ArtifactStore:
        """Open the store with the prefix ``name``, without a relay."""
        return open_store(
            StoreConfig(url=f"s3://{BUCKET}/{name}", endpoint=self.endpoint, secure=False, region="us-east-1")
        )

    def environment(self, port: int) -> dict[str, str]:
        """Return the variables with which a command reaches the server through the relay on ``port``."""
        return {"EDITR1_S3_ENDPOINT": f"http://127.0.0.1:{port}", "EDITR1_S3_REGION": "us-east-1", **self.keys()}

    def keys(self) -> dict[str, str]:
        """Return the variables with the credentials."""
        return {"EDITR1_S3_ACCESS_KEY": self.access_key, "EDITR1_S3_SECRET_KEY": self.secret_key}
