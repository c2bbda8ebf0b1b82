"""What we ask of our manifests beyond what Kubernetes and KubeRay do: a check each, which tells what is against it."""

import re
import tomllib

import yaml
from support.manifests import K8S, campaign, environment, groups, of_kind

from cluster.campaign.spec import WorkerSpec

VERSION = tomllib.loads((K8S.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
README = (K8S / "README.md").read_text(encoding="utf-8")
SAFE_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
                "secret"}
METRICS = 8080  # which KubeRay names `metrics`, and adds
SPOT = {"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT",
        "cloud.google.com/gke-spot": "true", "kubernetes.azure.com/scalesetpriority": "spot"}
GPU = "nvidia.com/gpu"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def amount(quantity):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(quantity)).groups()
    return float(number) * (0.001 if unit == "m" else UNITS.get(unit, 1))


def restricted(objects):
    """The pod security standard of that name."""
    for group in groups(objects):
        pod = group.pod.get("securityContext", {})
        if any(group.pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{group.where} is in a namespace of the host's"
        for volume in group.pod.get("volumes", ()):
            if not SAFE_VOLUMES & set(volume):
                yield f"{group.where} mounts a {set(volume) - {'name'}}"
        for container in group.containers:
            own = container.get("securityContext", {})
            both = {**pod, **own}
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{container['name']} may come by more rights"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
                yield f"{container['name']} keeps capabilities"
            if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
                yield f"{container['name']} may be root"
            if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
                yield f"{container['name']} may call all of the kernel"
            if any("hostPort" in port for port in container.get("ports", ())):
                yield f"{container['name']} takes a port of the host's"


def guaranteed(objects):
    """A pod has what it asks for: none is killed for memory that it was promised."""
    for group in groups(objects):
        for container in group.containers:
            asked, most = (container.get("resources", {}).get(name, {}) for name in ("requests", "limits"))
            if not {"cpu", "memory"} <= set(asked) or asked != most:
                yield f"{container['name']} asks for {asked} and may have {most}"


def shared_memory(objects):
    """KubeRay's, which the object store fits."""
    for group in groups(objects):
        if any(mount["mountPath"].startswith("/dev/shm") for mount in group.container["volumeMounts"]):
            yield f"{group.where} mounts a /dev/shm of its own"
        store = int(group.fields["rayStartParams"].get("object-store-memory", 2**60))
        if store > amount(group.container["resources"]["limits"]["memory"]) / 2:
            yield f"{group.where}: the object store takes more than half the memory"


def ports(objects):
    found = {}
    for group in groups(objects):
        for container in group.containers:
            for port in container.get("ports", ()):
                if not port.get("name") or port["name"] in found:
                    yield f"port {port['containerPort']} has no name of its own"
                found[port.get("name")] = port["containerPort"]
    known = {**found, "metrics": METRICS}
    for monitor in of_kind(objects, "PodMonitor").values():
        for end in monitor["spec"]["podMetricsEndpoints"]:
            if end["port"] not in known:
                yield f"nothing listens at {end['port']}"
    for policy in of_kind(objects, "NetworkPolicy").values():
        for rule in policy["spec"]["ingress"]:
            for port in rule.get("ports", ()):
                if port["port"] not in known.values():
                    yield f"nothing listens at {port['port']}"


def references(objects):
    """Everything that is named is there; the secrets are those that README.md has one make."""
    for group in groups(objects):
        named = {("ServiceAccount", group.pod["serviceAccountName"])}
        secrets = {group.cluster["authOptions"]["secretName"]}
        volumes = {volume["name"]: volume for volume in group.pod.get("volumes", ())}
        for volume in volumes.values():
            named |= {(kind, volume[field][key]) for kind, field, key in (
                ("ConfigMap", "configMap", "name"), ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"))
                if field in volume}
        for container in group.pod["containers"]:
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    named.add(("ConfigMap", source["configMapRef"]["name"]))
                else:
                    secrets.add(source["secretRef"]["name"])
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            if mounts != set(volumes):
                yield f"{group.where} mounts {sorted(mounts)} of {sorted(volumes)}"
        yield from (f"{group.where} names {kind} {name}" for kind, name in sorted(named)
                    if name not in of_kind(objects, kind))
        yield from (f"nobody is told to make Secret {name}" for name in sorted(secrets)
                    if f"create secret generic {name} " not in README)


def labels(objects):
    """By them monitors and policies find the pods, which have KubeRay's own besides."""
    for kind, key in (("PodMonitor", "selector"), ("NetworkPolicy", "podSelector")):
        for each in of_kind(objects, kind).values():
            wanted = set(each["spec"][key]["matchLabels"].items())
            for group in groups(objects):
                node = ("ray.io/node-type", "head" if group.is_head else "worker")
                has = {*group.template["metadata"]["labels"].items(), node}
                if not wanted <= has and (group.is_head or "head" not in dict(wanted).values()):
                    yield f"{kind} {each['metadata']['name']} does not find {group.where}"


def monitors(objects):
    """What rules, dashboards and Prometheus ask for (README.md)."""
    found = of_kind(objects, "PodMonitor")
    if found and "editfleet" not in found:
        yield "alerts know the driver's job as `editfleet`"
    for each in [*found.values(), *of_kind(objects, "PrometheusRule").values()]:
        if "release" not in each["metadata"]["labels"]:
            yield f"{each['kind']} {each['metadata']['name']} has no label `release`"
    for name, each in found.items():
        for end in each["spec"]["podMetricsEndpoints"]:
            if "ray_io_cluster" not in [rule["targetLabel"] for rule in end.get("relabelings", ())]:
                yield f"{name}: series of {end['port']} do not tell their cluster"
    if found and not all(name.startswith("editfleet") for name in of_kind(objects, "RayJob")):
        yield "alerts know jobs whose name begins with `editfleet`"


def images(objects):
    used = {container["image"] for group in groups(objects) for container in group.containers if "image" in container}
    if len(used) != 1:
        yield f"workers of different versions are refused: {sorted(used)}"
    for image in used:
        if not re.fullmatch(rf"[\w.-]+(:\d+)?(/[\w.-]+)+:{re.escape(VERSION)}(-\w+)?", image):
            yield f"{image} is not of version {VERSION} in a registry"


def same_for_all(objects):
    """Every group sees the store and the cache as the head does."""
    head, *workers = groups(objects)
    for group in workers:
        if group.container["envFrom"] != head.container["envFrom"]:
            yield f"{group.where} has another environment than the head"
        mine, its = ({mount["name"] for mount in each.container["volumeMounts"]} for each in (group, head))
        if mine != its - {"campaign"}:
            yield f"{group.where} mounts {sorted(mine)}, the head {sorted(its)}"


def store(objects):
    place = environment(objects).get("EDITFLEET_STORE", "")
    mounted = [mount["mountPath"] for mount in groups(objects)[0].container["volumeMounts"]]
    if "://" not in place and not any(place.startswith(f"{path}/") for path in mounted):
        yield f"the store '{place}' goes with the pods"
    together = all("podAffinity" in group.pod.get("affinity", {}) for group in groups(objects))
    for name, claim in of_kind(objects, "PersistentVolumeClaim").items():
        if claim["spec"]["accessModes"] != ["ReadWriteMany"] and not together:
            yield f"{name} is for one node"


def head(objects):
    """It stays: with it the whole cluster goes."""
    for group in (group for group in groups(objects) if group.is_head):
        notes = group.template["metadata"]["annotations"]
        if (notes.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false"
                or notes.get("karpenter.sh/do-not-disrupt") != "true"):
            yield "the head may be evicted"
        [term] = group.pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"]
        avoided = {(each["key"], value) for each in term["matchExpressions"] if each["operator"] == "NotIn"
                   for value in each["values"]}
        if avoided != set(SPOT.items()):
            yield "the head may be on a spot machine"
        if [group.fields["rayStartParams"].get(name) for name in ("num-cpus", "num-gpus")] != ["0", "0"]:
            yield "workers may be on the head"
        if amount(group.container["resources"]["limits"]["memory"]) < 8 * 2**30:
            yield "the head has less than 8 GiB"


def account(objects):
    """Only the autoscaler speaks to Kubernetes."""
    for group in groups(objects):
        scales = group.is_head and group.cluster.get("enableInTreeAutoscaling", False)
        if group.pod.get("automountServiceAccountToken") is not scales:
            yield f"{group.where}: a token of the service account is {'' if scales else 'not '}wanted"


def spec_of(objects):
    return WorkerSpec.model_validate(yaml.safe_load(campaign(objects)).get("workers", {}))


def room(objects):
    """A worker, or all ranks of a gang, fit one pod; its GPU is one that Kubernetes gives."""
    spec = spec_of(objects)
    for group in (group for group in groups(objects) if not group.is_head):
        has = group.container["resources"]["limits"]
        gpus = amount(has.get(GPU, 0))
        if spec.devices * spec.cpus > amount(has["cpu"]) or spec.devices * (spec.gpus or 0) > gpus:
            yield f"no worker of {spec.devices} x ({spec.cpus} CPUs, {spec.gpus} GPUs) fits a pod of {has}"
        tolerated = any(each.get("key") == GPU for each in group.pod.get("tolerations", ()))
        if gpus and not (tolerated and "nodeAffinity" in group.pod.get("affinity", {})):
            yield f"{group.where} is not told where the GPUs are"


def wanted(objects):
    """Workers are asked for where pods come only then, and no more than can come."""
    asked = environment(objects).get("EDITFLEET_WORKERS")
    for group in (group for group in groups(objects) if not group.is_head):
        if group.cluster.get("enableInTreeAutoscaling") and not 0 < int(asked or 0) <= group.fields["maxReplicas"]:
            yield f"{asked} workers are asked for, of at most {group.fields['maxReplicas']} pods"


def dashboards(objects):
    """Grafana's sidecar finds them, and they fit an object of Kubernetes."""
    for name, each in of_kind(objects, "ConfigMap").items():
        if sum(len(text.encode()) for text in each["data"].values()) > 1_000_000:
            yield f"{name} is larger than 1 MB"
        if name.startswith("editfleet-dashboard") and each["metadata"]["labels"].get("grafana_dashboard") != "1":
            yield f"{name} is found by nobody"


CHECKS = (restricted, guaranteed, shared_memory, ports, references, labels, monitors, images, same_for_all, store, head,
          account, room, wanted, dashboards)
