"""What schemathesis changes in the requests that it draws, and what it checks beside its own checks."""

from functools import lru_cache
from json import dumps, loads
from typing import Any

import jsonschema_rs
import schemathesis


def without_zero_fractions(value: Any) -> Any:
    """The value with `247.0` as `247`: JSON Schema counts both as integers, and Fanfold takes only the second."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: without_zero_fractions(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_zero_fractions(item) for item in value]
    return value


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    return without_zero_fractions(body)


# A page waits for an entry that nothing may write, in milliseconds.
WAIT_MS = 20


@schemathesis.hook
def map_query(_context: Any, query: Any) -> Any:
    """The query with a short wait, if its wait is valid."""
    wait = (query or {}).get("wait")
    if isinstance(wait, int) and not isinstance(wait, bool) and WAIT_MS < wait <= 25_000:
        return {**query, "wait": WAIT_MS}
    return query


def operation_id(case: Any) -> str:
    return case.operation.definition.raw.get("operationId", "")


@lru_cache
def requests(document: str) -> Any:
    """The validator of one request, by the OpenAPI document."""
    components = loads(document)["components"]
    schema = {"$ref": "#/components/schemas/Request", "components": components}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def read(line: bytes) -> tuple[bool, Any]:
    """Whether the line is JSON, and its value."""
    try:
        return True, loads(line.decode(), parse_constant=lambda name: int(name))
    except ValueError:
        return False, line


def batch(body: str | bytes) -> list[tuple[bool, Any]]:
    """The requests of a body as it was sent: what is not an array is one request a line."""
    sent = body.encode() if isinstance(body, str) else body
    is_json, value = read(sent)
    if is_json and isinstance(value, list):
        return [(True, request) for request in value]
    return [read(line) for line in sent.split(b"\n") if line.strip()]


@schemathesis.check
def a_batch_refuses_what_is_not_valid(_context: Any, response: Any, case: Any) -> None:
    """A request of a batch gets a receipt if it is valid, and else a problem."""
    if operation_id(case) != "sendMany" or response.status_code != 202:
        return
    validator = requests(dumps(case.operation.schema.raw_schema))
    all_sent = batch(response.request.body)
    results = response.json()["results"]
    assert len(results) == len(all_sent), f"{len(all_sent)} requests got {len(results)} results"
    for (is_json, request), result in zip(all_sent, results):
        is_valid, is_taken = is_json and validator.is_valid(request), "problem" not in result
        assert is_valid == is_taken, f"the request {request!r} is {'' if is_valid else 'not '}valid, and gets {result}"


@schemathesis.check
def a_lookup_is_whole_and_alone(_context: Any, response: Any, case: Any) -> None:
    """A valid request for entries is refused only if it looks up an id and asks for a page, or has half of a lookup."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not operation_id(case).startswith("entries.") or response.status_code != 400 or not is_valid:
        return
    query = set(case.query or {})
    lookup = query & {"user", "client", "id"}
    is_whole = {"user", "id"} <= lookup
    assert lookup and (query & {"from", "limit"} or not is_whole), f"{sorted(query)} got {response.text}"
