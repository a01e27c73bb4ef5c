"""Settings from flags and one YAML file to frozen configurations, strictly: nothing unknown, nothing misspelt.

The YAML has a section per stage (``tile``, ``train``, ``embed``); a key is a flag's name with underscores. Nested
configurations are flattened: a key names one setting wherever its owner keeps it. Flags override the file.
"""

import dataclasses
import difflib
import reprlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from annotated_doc import Doc
from pydantic import ConfigDict, TypeAdapter, ValidationError

from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import created_by, fingerprint, to_json
from wsi_lmc.publish import exclusive, publish_text

SECTIONS = ("tile", "pack", "train", "embed", "import")
RUN_FILE = "run.yaml"
_STAMP = ("created_by", "fingerprint")
_MERGE = "tag:yaml.org,2002:merge"  # the key <<
_OF_SCALARS = (ValueError, AttributeError)
"""What PyYAML itself raises on dates, numbers and the like that are malformed."""

_SHORT = reprlib.Repr(maxlevel=2, maxlist=4, maxtuple=4, maxdict=4, maxset=4, maxstring=80, maxother=80)
"""For messages: a value may be the whole file, and by aliases far more than that."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One leaf of a configuration: its type, its default and the sentence that explains it."""

    name: str
    type: Any
    default: Any
    doc: str


def settings_of(config: type) -> list[Setting]:
    """All settings of a configuration, nested ones included, in order of declaration."""
    hints = get_type_hints(config, include_extras=True)
    found: list[Setting] = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            found += settings_of(hint)
        else:
            found.append(_setting(field, hint))
    return found


def build[C](config: type[C], values: Mapping[str, object], where: str) -> C:
    """A configuration from its settings by name; those left out keep their defaults.

    Args:
        config: the frozen dataclass.
        values: settings by name.
        where: what the values come from, for the message.

    Raises:
        UsageError: an unknown name or a value of the wrong type.
    """
    known = settings_of(config)
    refuse_unknown(values, [setting.name for setting in known], where)
    checked = {
        setting.name: _check(setting, values[setting.name], where) for setting in known if setting.name in values
    }
    return _assemble(config, checked)


def read_config(path: Path, known: Sequence[str] = SECTIONS) -> dict[str, dict[str, object]]:
    """Sections of a YAML file, all of them ``known``; a ``run.yaml`` that a run wrote is accepted, too.

    Raises:
        UsageError: no YAML, an unknown section, a key given twice, or a section that is no mapping.
    """
    document = _load(path, known)
    sections = {name: value for name, value in document.items() if name not in _STAMP}
    refuse_unknown(sections, known, str(path))
    for name, value in sections.items():
        if value is not None and not isinstance(value, dict):
            raise UsageError(f"{path}: {name} is {_SHORT.repr(value)}", f"settings under {name}:", "Indent them.")
        nameless = [key for key in value or {} if not isinstance(key, str)]
        if nameless:
            raise UsageError(f"{path}: a key of {name} is {_SHORT.repr(nameless[0])}", "names of settings", "Mend it.")
    return {name: dict(value or {}) for name, value in sections.items()}


def read_stamp(path: Path) -> dict[str, str]:
    """What a ``run.yaml`` says of itself beside its sections: ``created_by`` and ``fingerprint``, where it does.

    Raises:
        UsageError: as :func:`read_config`.
    """
    document = _load(path, SECTIONS)
    return {name: str(document[name]) for name in _STAMP if name in document}


def _load(path: Path, known: Sequence[str]) -> dict[Any, Any]:
    try:
        with closing(_StrictLoader(path.read_text(encoding="utf-8"))) as loader:
            document = loader.get_single_data()
    except (OSError, RecursionError, yaml.YAMLError, *_OF_SCALARS) as error:
        raise UsageError(f"cannot read {path}: {error}", "a YAML file of settings", "Correct it.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no sections", " or ".join(f"{name}:" for name in known), "Correct it.")
    return document


def flat_settings(config: Any) -> dict[str, object]:  # noqa: ANN401  any of the configuration dataclasses
    """Settings of a configuration by name, nested ones included: what :func:`build` takes."""
    flat: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flat |= flat_settings(value) if dataclasses.is_dataclass(value) else {field.name: to_json(value)}
    return flat


def schema_of(setting: Setting) -> dict[str, Any]:
    """JSON schema of one setting: its type or choices, its default, its sentence."""
    return {
        **TypeAdapter(setting.type).json_schema(),
        "default": to_json(setting.default),
        "description": setting.doc,
    }


def yaml_value(value: object) -> str:
    """A plain value as YAML has it, on one line."""
    return yaml.safe_dump(to_json(value), default_flow_style=True).splitlines()[0]


def write_resolved(folder: Path, configs: Mapping[str, object]) -> None:
    """Record stages' resolved settings in the folder's ``run.yaml``, keeping the other stages' sections."""
    path = folder / RUN_FILE
    with exclusive(folder, RUN_FILE):
        sections: dict[str, Any] = dict(read_config(path)) if path.is_file() else {}
        sections |= {name: flat_settings(config) for name, config in configs.items()}
        ordered = {name: sections[name] for name in SECTIONS if name in sections}
        document = ordered | {"created_by": created_by(), "fingerprint": fingerprint(ordered)}
        publish_text(folder, path, yaml.safe_dump(document, sort_keys=False))


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice; plain YAML takes the last one in silence."""

    def close(self) -> None:
        """Let go of the text."""
        self.dispose()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build one mapping."""
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != _MERGE]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _setting(field: dataclasses.Field[Any], hint: object) -> Setting:
    assert get_origin(hint) is Annotated, f"{field.name} has no documentation"  # noqa: S101  our own invariant
    kind, *notes = get_args(hint)
    doc = next(note.documentation for note in notes if isinstance(note, Doc))
    return Setting(field.name, kind, field.default, doc)


def _check(setting: Setting, value: object, where: str) -> object:
    """The value as its type; an int is a float, but no text is a number."""
    try:
        return TypeAdapter(setting.type, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        kind = getattr(setting.type, "__name__", None) if not get_args(setting.type) else None
        said = "; ".join(sorted({item["msg"] for item in error.errors()}))
        raise UsageError(
            f"{where}: {setting.name} = {_SHORT.repr(value)}",
            kind or said,
            f"Correct it; the default is {setting.default!r}.",
        ) from error


def _assemble(config: type, values: Mapping[str, object]) -> Any:  # noqa: ANN401  an instance of ``config``
    hints = get_type_hints(config)
    chosen: dict[str, object] = {}
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            chosen[field.name] = _assemble(hints[field.name], values)
        elif field.name in values:
            chosen[field.name] = values[field.name]
    return config(**chosen)


def refuse_unknown(given: Iterable[object], known: Iterable[str], where: str) -> None:
    """Refuse a name that is none of those known, and suggest the near one.

    Raises:
        UsageError: there is one.
    """
    names = list(known)
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(str(name)[:80], names, n=1, cutoff=0.5)
        meant = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
        raise UsageError(f"{where}: unknown key {_SHORT.repr(name)}", "a setting of this stage", meant)
