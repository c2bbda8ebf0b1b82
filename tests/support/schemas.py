"""Manifests against what Kubernetes would check them by: built-in kinds, Ray's with the rules beside their schemas, and
those of the Prometheus operator. A field that no schema knows is an error, though Kubernetes would just drop it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

KUBERNETES = "1.37"
#: The folder with KubeRay's CRDs, YAML or JSON, as its repository has them in helm-chart/kuberay-operator/crds; unless
#: it is named, one beside this repository.
CRDS = Path(os.environ.get("EDITFLEET_KUBERAY_CRDS") or Path(__file__).parents[3] / "shared/kuberay")
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="EDITFLEET_KUBERAY_CRDS names no folder of KubeRay's CRDs")


def strict(schema: Any) -> Any:
    """An OpenAPI schema as JSON Schema that refuses what is not in it."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: {field: strict(each) for field, each in value.items()} if name in ("properties", "$defs")
            else strict(value) for name, value in schema.items()
            if name not in ("default", "description", "x-kubernetes-validations")}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if made.get("properties") and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@cache
def ray_schema(kind: str) -> dict[str, Any]:
    """The schema of `ray.io/v1` as its CRD has it."""
    [file] = CRDS.glob(f"ray.io_{kind.lower()}s.*")
    crd = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return next(version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"] if version["name"] == "v1")


@cache
def _ray_validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = strict(ray_schema(kind))
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


@cache
def _prometheus_validator(kind: str) -> jsonschema.Draft202012Validator:
    from cloudcoil.models.prometheus_operator import v1

    return jsonschema.Draft202012Validator(strict(getattr(v1, kind).model_json_schema()))


def _told(validator: jsonschema.Draft202012Validator, manifest: dict[str, Any]) -> list[str]:
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
            for error in map(_innermost, validator.iter_errors(manifest))]


def _innermost(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Of the schemas that a value may fit, what the one says that it comes nearest to."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path) + bool(each.context))
    return error


def ray_errors(manifest: dict[str, Any]) -> list[str]:
    """What Ray's own schema says against a RayJob or RayCluster, and the CEL rules in it."""
    return [*_told(_ray_validator(manifest["kind"]), manifest),
            *_broken_rules(ray_schema(manifest["kind"]), manifest, "")]


def prometheus_errors(manifest: dict[str, Any]) -> list[str]:
    return _told(_prometheus_validator(manifest["kind"]), manifest)


def builtin_errors(manifest: dict[str, Any]) -> list[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'/'.join(map(str, error.path))}: {error.message}"]
    return []


def _broken_rules(schema: Any, value: Any, where: str) -> Iterator[str]:
    """What the rules say that hold for a value and for the parts of it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{where}: {rule['message']}"
    if isinstance(value, dict):
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(inner, dict):
                yield from _broken_rules(inner, each, f"{where}/{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _broken_rules(schema.get("items", {}), each, f"{where}/{number}")


def _holds(rule: str, value: Any) -> bool:
    import celpy

    environment = celpy.Environment()
    return bool(environment.program(environment.compile(rule)).evaluate({"self": celpy.json_to_cel(value)}))
