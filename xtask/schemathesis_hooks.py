"""What schemathesis changes in the requests that it draws."""

from typing import Any

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
