"""The generated documentation: two tables of README.md, between their markers, and the page docs/features.md.

`python -m scripts.docs.reference` writes them; `--check` only says whether they are current.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flink_jobs.project import project_root
from flink_jobs.schema import schema_text
from scripts.docs.features import features_page, markdown_table, short_table
from udfs.core.errors import HeadraceError

Schema = dict[str, Any]
FILES = {"pipeline.schema.json": "`pipeline.yaml`", "environment.schema.json": "Environment files (`conf/local.yaml`)"}


class MarkerError(HeadraceError):
    """The document lacks a marker."""


def filled(document: str) -> str:
    """Return a document with the text between its markers written anew.

    Raises
    ------
    MarkerError : a marker is missing.
    """
    for name, text in (("aggregations", short_table()), ("reference", reference())):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in document or end not in document:
            msg = f"the document has no {begin} … {end}; put both where the {name} belong"
            raise MarkerError(msg)
        before, _, rest = document.partition(begin)
        document = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return document


def reference() -> str:
    """Return the tables of all keys of the configuration files."""
    parts = []
    for name, title in FILES.items():
        schema = json.loads(schema_text(name))
        rows = list(_rows(schema, schema["$defs"], "", {}))
        parts.append(f"### {title}\n\n" + markdown_table(("key", "type", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _rows(schema: Schema, models: dict[str, Schema], prefix: str, seen: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield (key path, type, default, meaning) of all keys, a model's own keys where it occurs first."""
    required = schema.get("required", [])
    for key, field in schema["properties"].items():
        path = f"{prefix}{key}"
        default = "required" if key in required else _default(field.get("default"))
        model, suffix = _model(field)
        meaning = field.get("description") or models.get(model or "", {}).get("description", "")
        if model in seen:
            yield (f"`{path}`", f"as `{seen[model]}`", default, meaning)
            continue
        yield (f"`{path}`", _type(field), default, meaning)
        if model is not None:
            seen[model] = path
            if suffix == ".<name>":
                yield (f"`{path}{suffix}`", _type(_values(field)), "", models[model]["description"])
            yield from _rows(models[model], models, f"{path}{suffix}.", seen)


def _model(field: Schema) -> tuple[str | None, str]:
    """Return the model that a field leads to, and how its keys are reached: "", "[]" or ".<name>"."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2], ""
    for one in field.get("anyOf", ()):
        if "$ref" in one:
            return _model(one)
    if field.get("type") == "array":
        return _model(field["items"])[0], "[]"
    if field.get("type") == "object":
        return _model(_values(field))[0], ".<name>"
    return None, ""


def _values(field: Schema) -> Schema:
    """Return the schema of a mapping's values."""
    patterns = list(field.get("patternProperties", {}).values())
    found: Schema = patterns[0] if patterns else field["additionalProperties"]
    return found


def _type(field: Schema) -> str:
    if "title" in field:
        return str(field["title"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"] if one.get("type") != "null"))
    if "enum" in field or "const" in field:
        words = field.get("enum", [field.get("const")])
        return ", ".join(f"`{word if isinstance(word, str) else json.dumps(word)}`" for word in words)
    if "$ref" in field:
        return "mapping"
    text = str(field["type"])
    if text == "array":
        text = f"list of {_type(field['items'])}"
    elif text == "object":
        text = f"mapping of name to {_type(_values(field))}"
    elif text == "string":
        text = "duration" if "ms|s" in field.get("pattern", "") else "condition" if "examples" in field else "text"
    limits = [f"{sign} {field[name]}" for name, sign in (("minimum", "≥"), ("maximum", "≤")) if name in field]
    return " ".join([text, ", ".join(limits)]).strip()


def _default(value: object) -> str:
    if value in (None, [], {}, ""):
        return "none"
    return "" if isinstance(value, dict) else f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def documents(root: Path) -> dict[Path, str]:
    """Return what the generated documents should hold."""
    readme = root / "README.md"
    return {
        readme: filled(readme.read_text(encoding="utf-8")),
        root / "docs" / "features.md": features_page(),
    }


def main(arguments: list[str]) -> int:
    """Write or check the documents; 1 when `--check` finds one stale."""
    parser = argparse.ArgumentParser(description="Write the generated documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when it is not current")
    parser.add_argument("--root", type=Path, default=project_root(), help="folder of README.md and docs/")
    chosen = parser.parse_args(arguments)
    stale = 0
    for file, current in documents(chosen.root).items():
        if file.exists() and file.read_text(encoding="utf-8") == current:
            continue
        if chosen.check:
            print(f"{file}: the generated parts are stale; write them with: make docs", file=sys.stderr)
            stale = 1
        else:
            file.write_text(current, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
