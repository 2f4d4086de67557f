"""As much of JSON Schema as docs/check.schema.json uses; whatever else stands in a schema is refused, so that nothing in it is taken for checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
KNOWN = {"$schema", "title", "description", "$defs", "$ref", "type", "enum", "anyOf", "required", "properties", "additionalProperties", "items"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, place: str = "$") -> Iterator[str]:
    """In what a value isn't as the schema says; a property that the schema doesn't name is a fault as well: it isn't documented."""
    root = schema if root is None else root
    assert schema.keys() <= KNOWN, f"unknown keywords at {place}: {schema.keys() - KNOWN}"
    if "$ref" in schema:
        yield from faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, place)
    if "enum" in schema and not any(value == each and type(value) is type(each) for each in schema["enum"]):
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not any(_is(value, name) for name in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"])):
        yield f"{place}: {value!r} is no {schema['type']}"
    if "anyOf" in schema:
        tried = [list(faults(value, each, root, place)) for each in schema["anyOf"]]
        if all(tried):
            yield f"{place}: {value!r} is none of several: {tried}"
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        yield from (f"{place}.{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, each in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{place}.{name}: not documented"
            else:
                yield from faults(each, known, root, f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            yield from faults(each, schema["items"], root, f"{place}[{number}]")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
