"""What keeps libraries from unpickling, by which a file could run code as this user.

`torch.export.load` unpickles an example that a pt2 may hold, whatever it is told, and MLflow all
that it is not told to refuse.
"""

from __future__ import annotations

NO_PICKLES = {
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0",  # both would be an error
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
