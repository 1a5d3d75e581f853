"""How an episode ended, in the columns that LeRobot's evaluation writes and its learner reads.

`next.done` is true in the last frame; there `next.success` is true, and `next.reward` 1, when the operator called the
episode a success. Names and dtypes are those of `lerobot/scripts/lerobot_eval.py` (`_env_features_to_dataset_features`)
and `lerobot/rl/buffer.py` of LeRobot 0.6.1. Whether a failure or nobody's word stands behind a false `next.success` is
told by `outcome` in the episode's report (`data/reports.py`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aloha_runtime.data.statistics import Stats, vector_stats

REWARD, SUCCESS, DONE = "next.reward", "next.success", "next.done"
COLUMNS = {REWARD: "float32", SUCCESS: "bool", DONE: "bool"}
"""Each of one number, with its dtype."""
UNKNOWN: dict[str, NDArray[Any]] = {
    REWARD: np.zeros(1, np.float32),
    SUCCESS: np.zeros(1, np.bool_),
    DONE: np.zeros(1, np.bool_),
}
"""What is written of a frame before its episode has ended."""
OUTCOME = "outcome"
"""Key of a report. Only a report that has it (an empty one: nobody has said) belongs to an episode of the recorder."""
SUCCEEDED = "success"


def stamped(
    vectors: Mapping[str, NDArray[np.float32]], report: Mapping[str, Any] | None
) -> dict[str, NDArray[np.float32]]:
    """The (T, D) columns of one episode of the recorder with its end in them; those of others as they are."""
    if not report or OUTCOME not in report:
        return dict(vectors)
    succeeded = report[OUTCOME] == SUCCEEDED
    last = {REWARD: float(succeeded), SUCCESS: float(succeeded), DONE: 1.0}
    result = dict(vectors)
    for key in last.keys() & vectors.keys():
        result[key] = np.zeros_like(vectors[key])
        result[key][-1] = last[key]
    return result


def settled(table: pa.Table, episode: int, report: Mapping[str, Any]) -> tuple[pa.Table, Stats]:
    """A data file's table in which an episode of the recorder ends as its report says (the same object where it did so
    already), and the statistics of those columns in that episode."""
    keys = [key for key in COLUMNS if key in table.column_names]
    if OUTCOME not in report or not keys:
        return table, {}
    rows = table["episode_index"].to_numpy() == episode
    every = {key: table[key].to_numpy().astype(np.float32) for key in keys}
    wanted = stamped({key: values[rows][:, None] for key, values in every.items()}, report)
    for key, values in every.items():
        if not np.array_equal(values[rows], wanted[key][:, 0]):
            values[rows] = wanted[key][:, 0]
            place, kind = table.column_names.index(key), table.schema.field(key).type
            table = table.set_column(place, key, pa.array(values).cast(kind))
    return table, {key: vector_stats(values) for key, values in wanted.items()}
