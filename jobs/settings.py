"""What may be set in a campaign, as JSON Schema."""

from __future__ import annotations

from typing import Any

from cluster.campaign.spec import Campaign
from editors import EDITORS, get_editor
from evaluators.datasets.spec import BUILT_IN

Schema = dict[str, Any]
PLACES = ("path", "hub", "built_in")  # of data sets whose names are free
TITLE = "An EditFleet campaign"


def campaign_schema() -> Schema:
    """The JSON Schema of campaign files: pydantic's, and what it cannot know. That is: a bare name stands for a mapping
    with that name, some defaults have a form of their own, an editor's `config` has the settings of its method, all of
    which may be left to presets, and what `include`, `scales` and `sweep` make of the rest."""
    found = Campaign.model_json_schema()
    definitions, fields = found["$defs"], found["properties"]
    bare: dict[str, Schema] = {"models": {"type": "string", "minLength": 1}, "datasets": {"enum": list(BUILT_IN)},
                               "editors": {"enum": list(EDITORS)}}
    for name, choice in bare.items():
        fields[name]["items"] = {"anyOf": [choice, fields[name]["items"]]}
    fields["protocols"]["default"] = ["single"]
    fields["measures"]["default"] = {}
    definitions["DatasetEntry"] |= {"if": {"not": {"anyOf": [{"required": [place]} for place in PLACES]}},
                                    "then": {"properties": {"name": {"enum": list(BUILT_IN)}}}}
    editor = definitions["EditorSpec"]
    editor["properties"]["name"] |= {"enum": list(EDITORS)}
    editor["allOf"] = []
    for name in EDITORS:
        settings = get_editor(name).Config.model_json_schema()
        definitions |= settings.pop("$defs", {})
        settings.pop("required", None)
        definitions[f"config of {name}"] = settings
        editor["allOf"].append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]},
                                "then": {"properties": {"config": {"$ref": f"#/$defs/config of {name}"}}}})
    definitions["DatasetEntry"]["properties"]["built_in"]["anyOf"][0] |= {"enum": list(BUILT_IN)}
    fields["sweep"] = {
        "anyOf": [{"$ref": "#/$defs/grid"}, {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/grid"}}],
        "description": "Lists of values by addresses, such as `editors.ft.lr: [1.0e-4, 1.0e-3]`: all combinations of "
                       "those of one entry take its place. Several mappings, in a list, are added up."}
    definitions["grid"] = {"type": "object", "minProperties": 1, "additionalProperties": False, "patternProperties": {
        r"^(models|datasets|editors|protocols)\..+\..|^(seeds|orders)$": {"type": "array", "minItems": 1}}}
    definitions["scale"] = {"type": "object", "additionalProperties": False, "properties": dict(fields)}
    fields["scales"] = {
        "type": "object", "additionalProperties": {"$ref": "#/$defs/scale"},
        "description": "Variants of the campaign, by name: `--scale NAME` puts its fields in the place of the "
                       "campaign's."}
    fields["include"] = {
        "anyOf": [{"type": "string", "minLength": 1},
                  {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}],
        "description": "Files, or names of shipped campaigns, whose fields hold where this file has none of its own."}
    parts = {"required": ["name", "parts"]}  # which have the rest, as an included file may
    found["if"], found["then"] = {"not": {"required": ["include"]}}, {
        "anyOf": [parts, {"required": found.pop("required"), "not": parts}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(found), "title": TITLE}


def _without_titles(part: Any, names: bool = False) -> Any:
    """Without the titles that pydantic makes of names: editors would show them in the place of the names. Below
    `properties` (and the like), keys are `names` of their own, and not words of the schema."""
    if isinstance(part, list):
        return [_without_titles(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {key: _without_titles(value, not names and key in ("properties", "$defs")) for key, value in part.items()
            if names or key != "title"}
