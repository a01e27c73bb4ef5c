"""One file of all settings: a commented YAML at the defaults, and the JSON schema by which editors check such files."""

import json
import textwrap
from pathlib import Path
from typing import Any

from wsi_lmc.config import SECTIONS, schema_of, settings_of, yaml_value
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.importing import ImportConfig
from wsi_lmc.patches import PackConfig
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import TrainConfig

CONFIGS: dict[str, type] = {
    "tile": TileConfig,
    "pack": PackConfig,
    "train": TrainConfig,
    "embed": EmbedConfig,
    "import": ImportConfig,
}
"""The configuration of each section, all of :data:`wsi_lmc.config.SECTIONS`."""
_COLUMNS = 110
_HEAD = """\
# Settings of wsi-lmc, all at their defaults: change what you need, and delete the rest, which then follows the defaults
# of whichever version runs. Give it with --config; flags override it, and a key that does not exist is refused.
"""


def commented_yaml(schema: str) -> str:
    """Every setting at its default under the sentence that explains it; the first line names the ``schema`` beside."""
    lines = [f"# yaml-language-server: $schema={schema}", _HEAD.rstrip()]
    for section in SECTIONS:
        lines += ["", f"{section}:"]
        for setting in settings_of(CONFIGS[section]):
            lines += textwrap.wrap(setting.doc, _COLUMNS, initial_indent="  # ", subsequent_indent="  # ")
            lines.append(f"  {setting.name}: {yaml_value(setting.default)}")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a file of settings: sections, settings, types, defaults, nothing else.

    It knows types and choices; ranges, and settings that exclude each other, are checked when a command starts.
    """
    stamp = {"type": "string", "description": "Written into a run's run.yaml; ignored."}
    sections = {section: _section(config) for section, config in CONFIGS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of wsi-lmc",
        "type": "object",
        "additionalProperties": False,
        "properties": {**sections, "created_by": stamp, "fingerprint": stamp},
    }


def schema_text() -> str:
    """The schema as a file holds it."""
    return json.dumps(json_schema(), indent=1) + "\n"


def schema_beside(file: Path) -> Path:
    """Where the schema of a file of settings lies."""
    return file.with_suffix(".schema.json")


def _section(config: type) -> dict[str, Any]:
    settings = {setting.name: schema_of(setting) for setting in settings_of(config)}
    return {
        "type": ["object", "null"],
        "description": (config.__doc__ or "").splitlines()[0],
        "additionalProperties": False,
        "properties": settings,
    }
