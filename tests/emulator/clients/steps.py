"""Runs named steps and prints what came of each as one JSON document on the last line."""

import json
import traceback
from collections.abc import Callable
from typing import Any

RESULTS: dict[str, dict[str, Any]] = {}


def step(name: str, action: Callable[[], Any]) -> Any:
    """Do it; note its result or its error; go on either way."""
    try:
        result = action()
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        RESULTS[name] = {"ok": False, "error": text, "trace": traceback.format_exc()[-1500:]}
        return None
    RESULTS[name] = {"ok": True, "result": result}
    return result


def finish() -> None:
    """Print what came of all steps."""
    print(json.dumps(RESULTS, default=str))
