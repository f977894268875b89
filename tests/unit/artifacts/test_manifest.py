"""The digest of a manifest depends only on its content; invalid manifests are refused."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from editr1.artifacts import InvalidManifest, Manifest, ManifestFile
from editr1.artifacts.manifest import parse_manifest

DIGEST = "sha256:" + "a" * 64


def manifest(*paths: str) -> Manifest:
    return Manifest(
        kind="rows", stage="curate", files=tuple(ManifestFile(path=p, size=1, digest=DIGEST) for p in paths)
    )


def test_manifest_digest_is_the_hash_of_the_stored_json() -> None:
    text = (
        '{"attributes":{},"config_digest":"","files":[{"digest":"DIGEST","path":"ü","size":1}],'
        '"format":"editr1.dev/artifact/v1","git_revision":"","kind":"rows","parents":[],"run":"","stage":"curate"}'
    ).replace("DIGEST", DIGEST)
    assert manifest("ü").canonical().decode() == text
    assert manifest("ü").digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert parse_manifest(text.encode(), "here") == manifest("ü")


@pytest.mark.parametrize("paths", [(), ("b", "a"), ("a", "a"), ("a", "a/b")])
def test_paths_must_be_sorted_distinct_and_not_nested(paths: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        manifest(*paths)


def test_error_for_invalid_manifest_contains_source_and_field() -> None:
    with pytest.raises(InvalidManifest, match=r"here: kind: 'No': "):
        parse_manifest(manifest("a").canonical().replace(b'"rows"', b'"No"'), "here")
    with pytest.raises(InvalidManifest, match="here: "):
        parse_manifest(b"\xff", "here")
