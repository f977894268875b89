"""The check of a reward service, against the project's server and against services of other authors, right and wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.errors import ExitCode
from editr1.serving.answers import score_fault
from editr1.serving.api import ScoreResponse
from editr1.serving.conformance import check_service

from .outside_server import MODEL, digest, honest, outside_server
from .test_serving_client import start_server as start_server  # a fixture
from .test_wrong_answers import ITEMS, WHOLE


def faults(url: str, **more) -> dict[str, str]:
    return {finding.check: finding.detail for finding in check_service(url, **more) if not finding.ok}


def refusing_damaged_images(request, response):
    """Like a service that decodes the images."""
    for item, result in zip(request["items"], response["results"], strict=True):
        if item["edited"].get("data") == "bm8gaW1hZ2U=":
            edited = digest(item["edited"])
            result.clear()
            result |= {"ok": False, "edited": edited, "cause": "invalid", "detail": "no image"}
    return response


def test_server_of_this_package_conforms(start_server, fake_engine, make_items) -> None:
    url, _ = start_server(fake_engine)
    assert faults(url, items=make_items(3)) == {}


@pytest.mark.parametrize("verdicts", [True, False])
def test_minimal_service_of_another_author_conforms(verdicts: bool) -> None:
    with outside_server(refusing_damaged_images, verdicts=verdicts) as server:
        assert faults(server.url) == {}
        result = CliRunner().invoke(app, ["check-reward", "--server", server.url])
    assert result.exit_code == 0
    assert result.output.count("ok    ") == 10


@pytest.mark.parametrize("name", [*WHOLE, *ITEMS])
def test_service_with_a_wrong_response_does_not_conform(name: str, make_items) -> None:
    with outside_server((WHOLE | ITEMS)[name]) as server:
        found = faults(server.url, items=make_items(3))
        assert len(found) >= 1
    assert (
        "names the request, the model and every edited image" in found
        or "scores agree with verdicts and traces" in found
    )


def test_service_that_scores_what_is_not_an_image_does_not_conform() -> None:
    with outside_server(honest) as server:
        assert faults(server.url) == {"gives no score for a file that is not an image": "it has a score"}


def test_digest_of_a_service_that_does_not_report_it_can_be_stated() -> None:
    with outside_server(refusing_damaged_images, info={}) as server:
        assert list(faults(server.url)) == ["/v1/info reports the digest of the model"]
        assert faults(server.url, digest=MODEL) == {}
        other = faults(server.url, digest="sha256:" + "0" * 64)
        assert f"the response is from model {MODEL}" in other["names the request, the model and every edited image"]


def test_stated_digest_that_is_no_digest_is_rejected() -> None:
    with outside_server(honest) as server:
        result = CliRunner().invoke(app, ["check-reward", "--server", server.url, "--digest", "foo"])
    assert result.exit_code == ExitCode.CONFIG
    assert "--digest: 'foo' is not the digest of a model" in result.output


@pytest.mark.parametrize("verdicts", [True, False])
def test_score_is_printed_with_or_without_verdicts(verdicts: bool, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    edit = ["--source", str(image), "--edited", str(image), "--instruction", "make it red"]
    with outside_server(honest, verdicts=verdicts) as server:
        result = CliRunner().invoke(app, ["score", *edit, "--server", server.url])
    assert result.exit_code == 0, result.output
    assert "of 10" in result.output
    assert ("not given" in result.output) is not verdicts


def test_address_without_a_server_fails_every_check_with_the_reason() -> None:
    result = CliRunner().invoke(app, ["check-reward", "--server", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.output.count("FAIL  ") == 3
    assert "Connection refused" in result.output


def test_documented_response_of_another_server_is_accepted(make_items) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "serve-and-score.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    whole = re.sub(r"sha256:([0-9a-f]+)…", lambda found: "sha256:" + found[1].ljust(64, "0"), example)
    response = ScoreResponse.model_validate_json(whole, strict=True)
    (item,) = make_items(1)
    principles = (item.principles * 2)[:2]
    assert score_fault(response.results[0], item.model_copy(update={"principles": principles}), num_traces=1) == ""
