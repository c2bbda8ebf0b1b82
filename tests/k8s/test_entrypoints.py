"""What jobs on Kubernetes run is real: their campaigns plan and fit their pods, and the command line ends with 0."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache

import pytest
import yaml
from support.manifests import K8S, campaign, environment, groups, needs_kubectl, of_kind
from support.paper_stand_ins import use_stand_ins
from support.policies import amount

from cluster.plan.memory import memory_of
from jobs.cli import load
from jobs.console import CAMPAIGNS, plan_campaign

pytestmark = needs_kubectl
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
ON_GPUS = ("v100-32gb", "h200")
GENTLE = "--tolerate-failed-tasks"
KNOWN = {option for parameter in load("run").params for option in parameter.opts}


def entrypoint(objects):
    [job] = of_kind(objects, "RayJob").values()
    return job["spec"]["entrypoint"]


@pytest.fixture(scope="module")
def planned(rendered, tmp_path_factory):
    """Plans by a shipped campaign's name or an overlay's, on stand-ins for the paper's models and data."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(folder, patch)

        @cache
        def plan(name):
            if name in rendered:
                (folder / f"{name}.yaml").write_text(campaign(rendered[name]))
            return plan_campaign(f"{name}.yaml" if name in rendered else name, None, "data")

        yield plan


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_campaign_plans(name, planned):
    assert {task.kind for task in planned(name).tasks.values()} >= {"baseline", "statistics", "train", "score"}


@pytest.mark.parametrize("name", ON_GPUS)
def test_its_data_is_in_the_cache(name, rendered):
    [where] = [mount["mountPath"] for mount in groups(rendered[name])[1].container["volumeMounts"]
               if mount["name"] == "cache"]
    assert yaml.safe_load(campaign(rendered[name]))["data"].startswith(f"{where}/")
    image = (K8S / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:HF_HOME|EDITFLEET_CACHE)=(/\w+)", image)) == {where}


@pytest.mark.parametrize("name", ON_GPUS)
def test_its_tasks_are_those_of_the_paper(name, planned):
    paper = planned("table2")
    assert set(planned(name).tasks) == {task for task in paper.tasks if paper.labels(task).model == "gpt-j"}


@pytest.mark.parametrize("name", ON_GPUS)
def test_its_model_fits_the_pods(name, planned, rendered):
    found = planned(name)
    spec = found.campaign.workers
    [model] = found.models.values()
    memory = memory_of(model, found.tasks.values())
    assert model.dtype == "float32" and memory.complaint("gpt-j", spec) is None
    [_, workers] = groups(rendered[name])
    store = int(workers.fields["rayStartParams"]["object-store-memory"])
    in_memory = memory.weights if spec.offload == "cpu" or spec.devices == 1 else 0  # while loading, at least
    assert in_memory + store + spec.devices * 4 * 2**30 < amount(workers.container["resources"]["limits"]["memory"])


def test_a_gpu_of_32_gib_would_not_hold_it_alone(planned):
    """So that the test above can fail."""
    found = planned("v100-32gb")
    alone = found.campaign.workers.model_copy(update={"devices": 1, "offload": "none"})
    [model] = found.models.values()
    assert "what would hold it" in memory_of(model, found.tasks.values()).complaint("gpt-j", alone)


def test_what_an_overlay_runs_that_names_nothing_is_the_quickstart():
    base, quickstart = (yaml.safe_load(file.read_text(encoding="utf-8"))
                        for file in (K8S / "base/campaign.yaml", CAMPAIGNS / "quickstart.yaml"))
    assert {**base, "workers": None} == {**quickstart, "workers": None}


def test_every_option_is_one_of_run(rendered):
    used = {name: {word for word in shlex.split(entrypoint(objects)) if word.startswith("--")}
            for name, objects in rendered.items() if of_kind(objects, "RayJob")}
    assert set(map(tuple, map(sorted, used.values()))) == {
        ("--metrics-bind", "--metrics-port", "--out", GENTLE)}
    assert next(iter(used.values())) <= KNOWN and "--workers" in KNOWN


@pytest.mark.parametrize(("more", "said"), [({}, ""), ({"EDITFLEET_WORKERS": "8"}, "--workers 8")])
def test_the_shell_makes_of_it_what_the_components_say(rendered, more, said):
    name = "cpu-demo + autoscaling" if more else "cpu-demo"
    variables = environment(rendered[name])
    assert more.items() <= variables.items() and ("EDITFLEET_WORKERS" in variables) == bool(more)
    told = subprocess.run(["sh", "-c", f"echo {entrypoint(rendered[name])}"], env=variables, capture_output=True,
                          text=True, check=True).stdout
    assert told.split() == [*f"editfleet run /campaign/campaign.yaml --out /store/editfleet --metrics-port 9464 "
                             f"--metrics-bind 0.0.0.0 {GENTLE} {said}".split()]


def test_its_metrics_are_where_they_are_looked_for(rendered):
    words = shlex.split(entrypoint(rendered["h200"]))
    [port] = [port["containerPort"] for port in groups(rendered["h200"])[0].container["ports"]
              if port["name"] == "editfleet"]
    assert words[words.index("--metrics-port") + 1] == str(port)


def test_the_demos_entrypoint_ends_with_0(rendered, tmp_path):
    """As the head runs it, but for the places, and with four cases of the unedited model."""
    small = yaml.safe_load(campaign(rendered["cpu-demo"]))
    small["datasets"][0]["limit"], small["editors"] = 4, ["identity"]
    (tmp_path / "campaign.yaml").write_text(json.dumps(small))
    command = tmp_path / "editfleet"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs.cli "$@"\n')
    command.chmod(0o755)
    variables = {**os.environ, **environment(rendered["cpu-demo"]), "EDITFLEET_STORE": str(tmp_path / "store"),
                 "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(K8S.parent)}
    variables.pop("RAY_ADDRESS", None)
    done = subprocess.run(["sh", "-c", entrypoint(rendered["cpu-demo"]).replace("/campaign/", f"{tmp_path}/")],
                          cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and "identity" in done.stdout, done.stderr
