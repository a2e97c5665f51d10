"""Fields, constants and defaults of every interface, as built. `python -m tests.package.interface_fields` rewrites the golden file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from astra_ros.action import PredictFutures
from astra_ros.msg import ActionSequence, Goal, ModelInfo, PredictedFuture, PredictionError
from astra_ros.srv import EvaluateActions, ProposeActions, SetGoal

GOLDEN = Path(__file__).with_name("interface_fields.json")
PARTS: dict[str, type] = {
    "msg/ActionSequence": ActionSequence,
    "msg/Goal": Goal,
    "msg/ModelInfo": ModelInfo,
    "msg/PredictedFuture": PredictedFuture,
    "msg/PredictionError": PredictionError,
    "srv/EvaluateActions request": EvaluateActions.Request,
    "srv/EvaluateActions response": EvaluateActions.Response,
    "srv/ProposeActions request": ProposeActions.Request,
    "srv/ProposeActions response": ProposeActions.Response,
    "srv/SetGoal request": SetGoal.Request,
    "srv/SetGoal response": SetGoal.Response,
    "action/PredictFutures goal": PredictFutures.Goal,
    "action/PredictFutures result": PredictFutures.Result,
    "action/PredictFutures feedback": PredictFutures.Feedback,
}


def describe(part: Any) -> dict[str, dict[str, Any]]:
    return {
        "fields": dict(part.get_fields_and_field_types()),
        "constants and defaults": dict(type(part).__prepare__("", ())),
    }


def main() -> None:
    GOLDEN.write_text(json.dumps({name: describe(part) for name, part in PARTS.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
