"""What may be set in a campaign, as JSON Schema."""

from __future__ import annotations

from typing import Any

from cluster.campaign.spec import Campaign
from editors import EDITORS, get_editor
from evaluators.datasets.spec import BUILT_IN

Schema = dict[str, Any]
TITLE = "An EditFleet campaign"


def campaign_schema() -> Schema:
    """The JSON Schema of campaign files: pydantic's, and what it cannot know. That is: a bare name stands for a mapping
    with that name, some defaults have a form of their own, `scales` hold parts of a campaign, and an editor's `config`
    has the settings of its method, all of which may be left to presets."""
    found = Campaign.model_json_schema()
    definitions, fields = found["$defs"], found["properties"]
    bare: dict[str, Schema] = {"models": {"type": "string", "minLength": 1}, "datasets": {"enum": list(BUILT_IN)},
                               "editors": {"enum": list(EDITORS)}}
    for name, choice in bare.items():
        fields[name]["items"] = {"anyOf": [choice, fields[name]["items"]]}
    fields["protocols"]["default"] = ["single"]
    fields["measures"]["default"] = {}
    definitions["DatasetEntry"] |= {"if": {"not": {"anyOf": [{"required": ["path"]}, {"required": ["hub"]}]}},
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
    fields["scales"] = {
        "type": "object", "additionalProperties": {"$ref": "#/$defs/scale"},
        "description": "Variants of the campaign, by name: `--scale NAME` puts its fields in the place of the "
                       "campaign's."}
    definitions["scale"] = {"type": "object", "additionalProperties": False,
                            "properties": {name: field for name, field in fields.items() if name != "scales"}}
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
