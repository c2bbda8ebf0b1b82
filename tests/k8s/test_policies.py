"""Our manifests keep what we ask of them beyond what Kubernetes and KubeRay do; and what does not keep it is seen."""

import pytest
from support.manifests import GONE, Mutation, changed, needs_kubectl
from support.policies import (
    CHECKS,
    VERSION,
    account,
    dashboards,
    guaranteed,
    head,
    images,
    labels,
    monitors,
    ports,
    references,
    restricted,
    room,
    same_for_all,
    shared_memory,
    store,
    wanted,
)

pytestmark = needs_kubectl
C = "template/spec/containers/0"
SCALED, GUARDED, CLAIM = "cpu-demo + autoscaling", "cpu-demo + networkpolicy", "PersistentVolumeClaim"
OPTIONS = "spec/rayClusterSpec/autoscalerOptions"
MUTATIONS = [
    (restricted, Mutation("RayJob", f"head:{C}/securityContext/allowPrivilegeEscalation", True, "head may come by")),
    (restricted, Mutation("RayJob", f"worker:{C}/securityContext", GONE, "ray-worker keeps capabilities")),
    (restricted, Mutation("RayJob", f"worker:{C}/securityContext/capabilities/add", ["NET_RAW"], "keeps capabilities")),
    (restricted, Mutation("RayJob", "worker:template/spec/securityContext/runAsNonRoot", GONE, "may be root")),
    (restricted, Mutation("RayJob", "head:template/spec/securityContext/runAsUser", 0, "ray-head may be root")),
    (restricted, Mutation("RayJob", "head:template/spec/securityContext/seccompProfile", GONE, "all of the kernel")),
    (restricted, Mutation("RayJob", "head:template/spec/hostNetwork", True, "of the host's")),
    (restricted, Mutation("RayJob", f"head:{C}/ports/0/hostPort", 6379, "a port of the host's")),
    (restricted, Mutation("RayJob", "head:template/spec/volumes/0", {"name": "campaign", "hostPath": {"path": "/"}},
                          "hostPath")),
    (restricted, Mutation("RayJob", "head:template/spec/initContainers", [{"name": "first"}], "first keeps")),
    (restricted, Mutation("RayJob", f"{OPTIONS}/securityContext", GONE, "autoscaler keeps", SCALED)),
    (guaranteed, Mutation("RayJob", f"worker:{C}/resources/limits/memory", "4Gi", "ray-worker asks")),
    (guaranteed, Mutation("RayJob", f"{OPTIONS}/resources", GONE, "autoscaler asks", SCALED)),
    (shared_memory, Mutation("RayJob", f"worker:{C}/volumeMounts/0/mountPath", "/dev/shm", "of its own")),
    (shared_memory, Mutation("RayJob", "worker:rayStartParams/object-store-memory", "2147483648", "more than half")),
    (shared_memory, Mutation("RayJob", "head:rayStartParams/object-store-memory", GONE, "more than half")),
    (ports, Mutation("RayJob", f"head:{C}/ports/4/name", GONE, "9464 has no name")),
    (ports, Mutation("RayJob", f"head:{C}/ports/4/name", "edit-fleet", "nothing listens at editfleet", "h200")),
    (ports, Mutation("NetworkPolicy", "spec/ingress/2/ports/3/port", 9465, "nothing listens at 9465", GUARDED)),
    (references, Mutation("RayJob", "worker:template/spec/serviceAccountName", "default", "ServiceAccount default")),
    (references, Mutation("RayJob", "head:template/spec/volumes/0/configMap/name", "editfleet-campaign",
                          "names ConfigMap editfleet-campaign")),
    (references, Mutation("RayJob", f"worker:{C}/envFrom/0/configMapRef/name", "editfleet-environment",
                          "names ConfigMap editfleet-environment")),
    (references, Mutation(CLAIM, "metadata/name", "store", "names PersistentVolumeClaim editfleet-store")),
    (references, Mutation("RayJob", f"worker:{C}/envFrom/1/secretRef/name", "keys", "Secret keys")),
    (references, Mutation("RayJob", "spec/rayClusterSpec/authOptions/secretName", "token", "Secret token")),
    (references, Mutation("RayJob", f"worker:{C}/volumeMounts/0/name", "stores", "workers mounts ['stores']")),
    (labels, Mutation("RayJob", "worker:template/metadata/labels", {}, "does not find workers", "h200")),
    (labels, Mutation("NetworkPolicy", "spec/podSelector/matchLabels", {"app": "x"}, "does not find head", GUARDED)),
    (monitors, Mutation("PodMonitor", "metadata/name", "driver", "as `editfleet`", "h200")),
    (monitors, Mutation("PodMonitor", "metadata/labels/release", GONE, "no label `release`", "h200")),
    (monitors, Mutation("PodMonitor", "spec/podMetricsEndpoints/0/relabelings", GONE, "their cluster", "h200")),
    (monitors, Mutation("RayJob", "metadata/name", "gptj", "begins with `editfleet`", "h200")),
    (images, Mutation("RayJob", f"worker:{C}/image", "registry.example.com/editfleet:0.0.9", "different versions")),
    (images, Mutation("RayJob", f"head:{C}/image", "registry.example.com/editfleet:latest", "latest is not of")),
    (images, Mutation("RayJob", f"head:{C}/image", f"editfleet:{VERSION}", "in a registry")),
    (same_for_all, Mutation("RayJob", f"worker:{C}/envFrom/1", GONE, "another environment", "h200")),
    (same_for_all, Mutation("RayJob", f"worker:{C}/volumeMounts", [], "workers mounts []", "h200")),
    (store, Mutation("ConfigMap", "data/EDITFLEET_STORE", "/home/ray/results", "goes with the pods")),
    (store, Mutation("ConfigMap", "data/EDITFLEET_STORE", GONE, "goes with the pods")),
    (store, Mutation("RayJob", "worker:template/spec/affinity", GONE, "editfleet-store is for one node")),
    (store, Mutation(CLAIM, "spec/accessModes", ["ReadWriteOnce"], "editfleet-cache is for one node", "h200")),
    (head, Mutation("RayJob", "head:template/metadata/annotations/karpenter.sh~do-not-disrupt", GONE, "evicted")),
    (head, Mutation("RayJob", "head:template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/"
                    "nodeSelectorTerms/0/matchExpressions/0/operator", "In", "spot machine")),
    (head, Mutation("RayJob", "head:rayStartParams/num-cpus", "2", "workers may be on the head")),
    (head, Mutation("RayJob", f"head:{C}/resources/limits/memory", "4Gi", "less than 8 GiB")),
    (account, Mutation("RayJob", "worker:template/spec/automountServiceAccountToken", True, "is not wanted")),
    (account, Mutation("RayJob", "head:template/spec/automountServiceAccountToken", False, "is wanted", SCALED)),
    (room, Mutation("RayJob", f"worker:{C}/resources/limits/nvidia.com~gpu", "1", "no worker of 2 x", "v100-32gb")),
    (room, Mutation("RayJob", f"worker:{C}/resources/limits/cpu", "500m", "no worker of 1 x (1 CPUs")),
    (room, Mutation("RayJob", "worker:template/spec/tolerations", [], "where the GPUs are", "h200")),
    (room, Mutation("RayJob", "worker:template/spec/affinity", GONE, "where the GPUs are", "v100-32gb")),
    (wanted, Mutation("ConfigMap", "data/EDITFLEET_WORKERS", GONE, "None workers are asked for", SCALED)),
    (wanted, Mutation("RayJob", "worker:maxReplicas", 4, "of at most 4 pods", SCALED)),
    (dashboards, Mutation("ConfigMap", "data/x", "é" * 500_001, "larger than 1 MB")),
    (dashboards, Mutation("ConfigMap", "metadata/labels", {}, "is found by nobody", "dashboards")),
]


@pytest.fixture(scope="session")
def shown(rendered):
    """And the dashboards by themselves, so that the first ConfigMap is one."""
    found = [each for each in rendered["h200"] if each["metadata"]["name"].startswith("editfleet-dashboard")]
    return {**rendered, "dashboards": found}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_our_manifests_keep_it(rendered, check):
    assert {name: list(check(objects)) for name, objects in rendered.items()} == {name: [] for name in rendered}


@pytest.mark.parametrize(("check", "mutation"), [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}")
                                                for each in MUTATIONS])
def test_what_does_not_is_seen(shown, check, mutation):
    kind, name = mutation.kind, mutation.name
    objects = shown[name]
    if kind == "ConfigMap" and name != "dashboards":  # the pods' environment, which stands behind the campaign
        objects = sorted(objects, key=lambda each: not each["metadata"]["name"].startswith("editfleet-environment"))
    found = list(check(changed(objects, kind, mutation.path, mutation.value)))
    assert any(mutation.said in error for error in found), found


def test_every_check_sees_something():
    assert {check for check, _ in MUTATIONS} == set(CHECKS)


def test_there_are_three_dashboards(shown):
    assert len(shown["dashboards"]) == 3
