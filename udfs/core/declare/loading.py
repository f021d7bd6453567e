"""YAML file -> frozen declaration. An error names file, path, what was got and what was probably meant."""

import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError, did_you_mean

M = TypeVar("M", bound=BaseModel)
PIPELINE_FILE = "pipeline.yaml"


class _UniqueKeyLoader(yaml.CSafeLoader):
    """Refuses a mapping that names a key twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"key {key!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def pipeline_folder(path: Path) -> Path:
    """Return the pipeline folder that a person means: the path itself, or the folder of the `pipeline.yaml` it names.

    Examples
    --------
    >>> pipeline_folder(Path("conf/flights/pipeline.yaml")) == pipeline_folder(Path("conf/flights"))
    True
    """
    return path.parent if path.name == PIPELINE_FILE else path


def load_pipeline(folder: Path) -> Pipeline:
    """Read `pipeline.yaml` of a pipeline folder (or that file itself).

    Raises
    ------
    DefinitionError : the file is missing, is no YAML, or declares something wrong; every problem is listed.
    """
    return load_yaml(pipeline_folder(folder) / PIPELINE_FILE, Pipeline)


def load_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file into `model`; see `load_pipeline` for the errors."""
    try:
        declared = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        near = did_you_mean(
            path.parent.name, (p.name for p in path.parent.parent.glob("*") if (p / path.name).exists())
        )
        msg = f"{path}: no such file{near}"
        raise DefinitionError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise DefinitionError(msg) from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        msg = f"{path}: is not valid YAML: {' '.join(str(error).split())}"
        raise DefinitionError(msg) from error
    return validate(path, declared, model)


def validate(path: Path, declared: object, model: type[M]) -> M:
    """Check a parsed document against `model`, with errors that name the file."""
    if not isinstance(declared, dict):
        msg = f"{path}: got {type(declared).__name__}; expected a mapping of {', '.join(model.model_fields)}"
        raise DefinitionError(msg)
    try:
        return model.model_validate(declared)
    except ValidationError as error:
        found = error.errors(include_url=False)
        places = [problem["loc"] for problem in found]
        # A list whose items are all wrong counts as empty, too: that says nothing new.
        problems = [
            _explain(model, problem)
            for problem, place in zip(found, places, strict=True)
            if problem["type"] != "too_short"
            or not any(len(p) > len(place) and p[: len(place)] == place for p in places)
        ]
        raise DefinitionError("\n".join(f"{path}: {problem}" for problem in dict.fromkeys(problems))) from None


def _explain(model: type[BaseModel], problem: Any) -> str:
    """Say one pydantic problem as `path: got …; did you mean …`."""
    location = tuple(part for part in problem["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    got, kind, context = problem["input"], problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys(_model_at(model, location[:-1]))
        text = f"unknown key{did_you_mean(str(location[-1]), known)}"
    elif kind == "missing":
        text = "missing"
    elif kind == "literal_error":
        words = [word.strip("'\"") for word in context["expected"].replace(" or ", ", ").split(", ")]
        text = f"got {got!r}{did_you_mean(str(got), words)}"
    elif kind == "value_error":
        text = str(context["error"])
    else:
        text = f"got {got!r}; {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    return f"{path}: {text}" if path else text


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the declaration class that a location inside `model` leads to."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return None
        by_key = {field.alias or name: field for name, field in current.model_fields.items()}
        if part in by_key:
            current = _model_in(by_key[part].annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first declaration class inside a type such as `list[Lookup]` or `Derive | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
