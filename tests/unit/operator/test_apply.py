"""Actions never change objects of other owners, and a shared service is deleted together with its last owner."""

from typing import Any

import pytest

from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.parse import job_view
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import DeleteJob, EnsureService, Launch, ReleaseService, SetSuspended
from editr1_operator.apply import Applier
from editr1_operator.cache import Cache
from editr1_operator.objects import MANAGED_BY, Objects, shared_name
from editr1_operator.settings import read_run

CLUSTER = ClusterConfig(
    registry="reg/e", resolve_images=False, values={"store": {"url": "s3://b/x"}, "gpus": 0, "image": {"tag": "1"}}
)
STORE = StoreConfig(url="s3://b/x")
DIGEST = "sha256:" + "d" * 64
PRINCIPLES = {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}
CURATE = StageSpec(name="curate", kind="curate", config={"labeller": "shapes", "curation": {"principles": PRINCIPLES}})
SERVE = StageSpec(name="rrm", kind="serve", inputs={"model": DIGEST})


class Server:
    """A fake API server. Apply merges owner references by UID, and deletion checks the resource version."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.down: set[str] = set()
        self._version = 0

    def get(self, kind: str, _namespace: str, name: str) -> Any:
        return self.objects.get((kind, name))

    def apply(self, _namespace: str, item: dict[str, Any], manager: str = "editr1-operator") -> Any:
        if item["kind"] in self.down:
            raise ClusterUnreachable("webhook")
        key = (item["kind"], item["metadata"]["name"])
        old = self.objects.get(key, {"metadata": {}})
        meta = {**old["metadata"], **item["metadata"]}
        owners = {o["uid"]: o for o in old["metadata"].get("ownerReferences", [])}
        owners |= {o["uid"]: o for o in item["metadata"].get("ownerReferences", [])}
        self._version += 1
        meta |= {"ownerReferences": list(owners.values()), "resourceVersion": str(self._version), "namespace": "lab"}
        meta.setdefault("uid", f"o{self._version}")
        self.objects[key] = {**old, **item, "metadata": meta}
        self.log.append(("apply", item["kind"]))
        return self.objects[key]

    def delete(self, kind: str, _namespace: str, name: str, **preconditions: Any) -> bool:
        found = self.objects.get((kind, name))
        version = preconditions.get("resourceVersion")
        if found is None or (version and version != found["metadata"]["resourceVersion"]):
            return False
        del self.objects[kind, name]
        self.log.append(("delete", kind))
        return True

    def patch(self, kind: str, _namespace: str, name: str, body: dict[str, Any], part: str = "") -> Any:
        found = self.objects[kind, name]
        if kind != "PyTorchJob" and body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise RequestRefused(409, "conflict")
        self._version += 1
        if kind == "PyTorchJob":
            annotations = {**found["metadata"].get("annotations", {}), **body["metadata"]["annotations"]}
            found["metadata"]["annotations"] = {key: value for key, value in annotations.items() if value is not None}
            found["spec"]["runPolicy"] |= body["spec"]["runPolicy"]
            return found
        found["metadata"] |= {**body["metadata"], "resourceVersion": str(self._version)}
        return found

    def owners(self, kind: str) -> set[str]:
        return {
            o["name"] for (k, _), item in self.objects.items() if k == kind for o in item["metadata"]["ownerReferences"]
        }


def applier(server: Server, run: str = "a", cluster: ClusterConfig = CLUSTER) -> Applier:
    spec = RunBody(stages=[CURATE, SERVE])
    release = shared_name(SERVE, DIGEST, "", 0, cluster, STORE)
    stages = [
        StageStatus(name="curate", kind="curate", key="a" * 64, release=f"{run}-curate"),
        StageStatus(name="rrm", kind="serve", key="b" * 64, release=release, inputs={"model": DIGEST}),
    ]
    meta = {"name": run, "namespace": "lab", "uid": f"uid-{run}"}
    objects = Objects(Helm(), cluster, STORE, meta, spec, "rev")
    return Applier(server, Cache(), objects, spec, RunStatus(stages=stages), meta)  # type: ignore[arg-type]


def test_job_is_owned_by_its_run_and_has_its_attempt_number() -> None:
    server = Server()
    assert applier(server).apply([Launch("curate", 3)]) == {}
    job = server.objects["PyTorchJob", "a-curate"]
    assert job["metadata"]["annotations"]["editr1.dev/attempt"] == "3"
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"]] == ["uid-a"]
    assert job["spec"]["pytorchReplicaSpecs"]["Master"]["restartPolicy"] == "Never"
    assert server.log[-1] == ("apply", "PyTorchJob"), "the job was applied before the objects that it needs"


def test_job_is_marked_while_it_is_suspended_by_its_run() -> None:
    server = Server()
    own = applier(server)
    assert own.apply([Launch("curate", 1)]) == {}
    seen = []
    for suspended in (True, False):
        assert own.apply([SetSuspended("curate", suspended)]) == {}
        job = job_view(server.objects["PyTorchJob", "a-curate"])
        seen.append((job.suspended, job.suspended_by_run))
    server.objects["PyTorchJob", "a-curate"]["spec"]["runPolicy"]["suspend"] = True  # A queue controller suspends it.
    job = job_view(server.objects["PyTorchJob", "a-curate"])
    assert seen == [(True, True), (False, False)] and (job.suspended, job.suspended_by_run) == (True, False)


@pytest.mark.parametrize("kind", ["ConfigMap", "ServiceAccount", "PyTorchJob"])
def test_object_managed_by_another_tool_is_not_changed(kind: str) -> None:
    server = Server()
    foreign = {"kind": kind, "metadata": {"name": "a-curate", "labels": {MANAGED_BY: "Helm"}, "ownerReferences": []}}
    server.objects[kind, "a-curate"] = foreign
    failed = applier(server).apply([Launch("curate", 1)])
    assert failed["curate"].reason is Reason.REFUSED and "is not managed by the operator" in failed["curate"].message
    assert server.objects[kind, "a-curate"] is foreign and foreign["metadata"]["ownerReferences"] == []


def test_object_of_an_earlier_run_with_the_same_name_is_not_changed() -> None:
    server = Server()
    applier(server).apply([Launch("curate", 1)])
    later = applier(server)
    later._uid = "uid-of-another"
    failed = later.apply([Launch("curate", 1)])
    assert "still belongs to an earlier run with this name" in failed["curate"].message


def test_shared_service_is_owned_by_each_run_and_deleted_with_the_last() -> None:
    server = Server()
    for run in ("a", "b"):
        assert applier(server, run).apply([EnsureService("rrm")]) == {}
    assert server.owners("Deployment") == server.owners("Service") == {"a", "b"}
    applier(server, "a").apply([ReleaseService("rrm")])
    assert server.owners("Deployment") == {"b"} and not [entry for entry in server.log if entry[0] == "delete"]
    applier(server, "b").apply([ReleaseService("rrm")])
    assert server.objects == {} and server.log[-1] == ("delete", "Deployment"), (
        "the Deployment, whose owners decide, was not deleted last"
    )


def test_service_is_kept_if_another_run_joins_during_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    applier(server, "a").apply([EnsureService("rrm")])
    get, joined = server.get, []

    def join_first(kind: str, namespace: str, name: str) -> Any:
        found = get(kind, namespace, name)
        if kind == "Deployment" and not joined:
            joined.append(True)
            found = {**found, "metadata": dict(found["metadata"])}
            applier(server, "b").apply([EnsureService("rrm")])
        return found

    monkeypatch.setattr(server, "get", join_first)
    applier(server, "a").apply([ReleaseService("rrm")])
    assert "b" in server.owners("Deployment") and "b" in server.owners("ConfigMap") and "b" in server.owners("Service")


def test_value_that_the_chart_rejects_is_a_settings_error() -> None:
    wrong = CLUSTER.model_copy(update={"values": {**CLUSTER.values, "gpuz": 1}})
    failed = applier(Server(), cluster=wrong).apply([Launch("curate", 1)])
    assert (failed["curate"].state, failed["curate"].reason) == (RunState.STARTING, Reason.SETTINGS)
    assert "gpuz" in failed["curate"].message


def test_outage_for_one_object_does_not_stop_other_actions() -> None:
    server = Server()
    applier(server).apply([Launch("curate", 1)])
    uid = server.objects["PyTorchJob", "a-curate"]["metadata"]["uid"]
    server.down = {"Deployment"}
    with pytest.raises(ClusterUnreachable):
        applier(server).apply([EnsureService("rrm"), DeleteJob("curate", uid)])
    assert ("PyTorchJob", "a-curate") not in server.objects


def test_settings_of_a_stage_override_those_of_its_chart_in_a_shared_service() -> None:
    stages = {"reward": {"replicas": 2}, "rrm": {"replicas": 4}}
    server = Server()
    applier(server, cluster=CLUSTER.model_copy(update={"stages": stages})).apply([EnsureService("rrm")])
    ((_, deployment),) = [(key, item) for key, item in server.objects.items() if key[0] == "Deployment"]
    assert deployment["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("x" * 40, "curate", "at most 45"),
        ("editr1", "cluster", "which is the name of the namespace's settings"),
    ],
)
def test_invalid_run_or_stage_name_is_rejected(name: str, stage: str, message: str) -> None:
    body = {
        "apiVersion": "editr1.dev/v1alpha1",
        "kind": "EditRun",
        "metadata": {"name": name},
        "spec": {"stages": [{"name": stage, "kind": "curate"}]},
    }
    with pytest.raises(ConfigError, match=message):
        read_run(body)
