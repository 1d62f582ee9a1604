"""The JSON Schema of a specification: it accepts what is accepted, and refuses typical mistakes."""

import json
import re
from typing import Any

import pytest
from alphagrid.documents import parse_value
from alphagrid.jobs.specification.json_schema import spec_schema

SCHEMA = json.loads(json.dumps(spec_schema()))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def is_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Tell whether a value fits a schema: the part of JSON Schema that ours uses."""
    return all(CHECKS[key](value, wanted, schema) for key, wanted in schema.items() if key in CHECKS)


def fits_properties(value: Any, properties: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    for key, item in value.items():
        patterns = schema.get("patternProperties", {})
        found = [properties[key]] if key in properties else []
        found += [wanted for pattern, wanted in patterns.items() if re.search(pattern, key)]
        if not found and schema.get("additionalProperties", True) is not True:
            found = [schema["additionalProperties"]]
        if not all(wanted is not False and fits(item, wanted) for wanted in found):
            return False
    return True


def number(value: Any) -> bool:
    return is_type(value, "number")


CHECKS: dict[str, Any] = {
    "$ref": lambda v, ref, s: fits(v, SCHEMA["$defs"][ref.removeprefix("#/$defs/")]),
    "anyOf": lambda v, options, s: any(fits(v, option) for option in options),
    "type": lambda v, t, s: any(is_type(v, name) for name in ([t] if isinstance(t, str) else t)),
    "const": lambda v, c, s: v == c,
    "enum": lambda v, e, s: v in e,
    "pattern": lambda v, p, s: not isinstance(v, str) or bool(re.search(p, v)),
    "minLength": lambda v, m, s: not isinstance(v, str) or len(v) >= m,
    "minimum": lambda v, m, s: not number(v) or v >= m,
    "maximum": lambda v, m, s: not number(v) or v <= m,
    "exclusiveMinimum": lambda v, m, s: not number(v) or v > m,
    "exclusiveMaximum": lambda v, m, s: not number(v) or v < m,
    "minItems": lambda v, m, s: not isinstance(v, list) or len(v) >= m,
    "maxItems": lambda v, m, s: not isinstance(v, list) or len(v) <= m,
    "minProperties": lambda v, m, s: not isinstance(v, dict) or len(v) >= m,
    "items": lambda v, i, s: not isinstance(v, list) or all(fits(item, i) for item in v),
    "required": lambda v, r, s: not isinstance(v, dict) or set(r) <= set(v),
    "propertyNames": lambda v, p, s: not isinstance(v, dict) or all(fits(key, p) for key in v),
    "properties": fits_properties,
    "additionalProperties": lambda v, a, s: "properties" in s or fits_properties(v, {}, s),
}
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "patternProperties", "uniqueItems"}

WHOLE = """
experiment: exp2-time
base:
  workload: {name: digits_mlp, batch_size: 32768}
  optimizer: {name: nadamw, lr: 2.1857984424097966e-4}
  schedule: {name: warmup_cosine, total_steps: 85328, warmup_fraction: 0.02}
  alpha: {policy: median, estimator: unbiased, start_step: 2000}
  eval: {every_seconds: 960}
  stop: {train_seconds: 61624}
grid:
  alpha.interval: [1000, 2000, 5000]
  alpha.count: [10, 25, 50]
baselines:
  nadamw: {alpha: null, stop: {steps: 85328}}
  schedule-free: {alpha: null, schedule: null, optimizer: {name: schedule_free_adamw}}
seeds: [0]
exclude: [{alpha.interval: 1000, alpha.count: 50}]
profile: slurm-a100
resources: {hours: 24}
"""


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(keywords, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "$defs"):
            found |= set().union(*map(keywords, value.values())) if value else set()
        elif key not in ("default", "const", "enum"):
            found |= keywords(value)
    return found


def test_the_schema_uses_no_keyword_that_this_test_does_not_check() -> None:
    assert keywords(SCHEMA) <= set(CHECKS) | ANNOTATIONS
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "experiment: a",
        "{experiment: a, zip: {optimizer.lr: [0.1, 1], optimizer.beta1: [0.8, 0.9]}}",
        "{experiment: a, grids: [{grid: {alpha.count: [1]}}, {zip: {seed: [1]}, base: {threads: 2}}]}",
        "{experiment: a, grid: {optimizer: [{name: nadamw}, {name: sgd, lr: 0.1}], alpha: [null]}}",
        "{experiment: a, base: {alpha: {policy: median}, optimizer.lr: 0.1, workload: {batch_size: 3}}}",
        "{experiment: a, base: {workload: {name: 'my_pkg.tasks:Task', width: 3}}}",
        "{experiment: a, grid: {workload.width: [3], workload.name: ['my_pkg.tasks:Task', digits_mlp]}}",
        "{experiment: a, exclude: [{optimizer: sgd, seed: 3}], resources: {gres: null, env: {A: b}}}",
    ],
)
def test_specifications_fit(text: str) -> None:
    assert fits(parse_value(text, "f"), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "{base: {}}",
        "experiment: A/b",
        "{experiment: a, grd: {}}",
        "{experiment: a, grid: {}}",
        "{experiment: a, grid: {alpha.count: []}}",
        "{experiment: a, grid: {alpha.count: 3}}",
        "{experiment: a, grid: {alpha.count: [x]}}",
        "{experiment: a, grid: {alpha.cuont: [3]}}",
        "{experiment: a, grid: {stop.steps: [3]}}",
        "{experiment: a, base: {optimizer: {name: nadamww}}}",
        "{experiment: a, base: {optimizer: {name: sgd, beta1: 0.5}}}",
        "{experiment: a, base: {optimizer: null}}",
        "{experiment: a, base: {alpha: {policy: median, cuont: 3}}}",
        "{experiment: a, base: {stop: {step: 3}}}",
        "{experiment: a, base: {device: gpu}}",
        "{experiment: a, baselines: {a/b: {}}}",
        "{experiment: a, baselines: {x: {alhpa: null}}}",
        "{experiment: a, seeds: [-1]}",
        "{experiment: a, resources: {hurs: 3}}",
        "{experiment: a, resources: {setup: [ls]}}",
    ],
)
def test_mistakes_do_not_fit(text: str) -> None:
    assert not fits(parse_value(text, "f"), SCHEMA)
