"""A checked export in MLflow: a LoggedModel of the study's experiment, registered under a name."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasfuse.errors import SetupError, UsageError
from nasfuse.study_runs import find_experiment
from nasfuse.tracking import TrackingError, open_client, tracking

FORBIDDEN = "/:.%\"'"  # by MLflow 3, in the name of a logged model


def require_model_name(name: str) -> None:
    """Refuse what MLflow would refuse once the export is written and checked.

    Raises:
        UsageError: it is no name of a model.
    """
    if not name.strip() or set(name) & set(FORBIDDEN):
        parts = name.translate(dict.fromkeys(map(ord, FORBIDDEN), " ")).split()
        raise UsageError(
            f"'{name}' cannot be the name of a model",
            where="--register",
            why=f"MLflow allows none that is empty or has one of {' '.join(FORBIDDEN)}",
            fix=f"--register {shlex.quote('-'.join(parts) or 'model')}",
        )


def register_model(
    folder: Path, name: str, *, uri: str, identity: str, tags: dict[str, str]
) -> str:
    """Log the files of `folder` (an MLflow model) and make them the newest version of `name`.

    `identity` is the study's; returns the model's address, such as models:/name/1.

    Raises:
        SetupError: the store cannot be used, or does not know the study.
    """
    try:
        with tracking("did not take the model"):
            client = open_client(uri)
            experiment = find_experiment(client, identity)
            if experiment is None:
                raise LookupError("the study has not been tracked there")
            model = client.create_logged_model(experiment.experiment_id, name, tags=tags)
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            with _address(uri):
                version = client.create_model_version(
                    name, model.artifact_location, tags=tags, model_id=model.model_id
                )
    except TrackingError as error:
        raise SetupError(
            f"the network is exported to {folder.parent}, and only registering it failed",
            where=uri,
            why=str(error),
            fix=f"--out {shlex.quote(f'{folder.parent}-2')}   in the same command, to try again",
        ) from None
    return f"models:/{name}/{version.version}"


@contextmanager
def _address(uri: str) -> Iterator[None]:
    """Where MLflow looks by itself: its local registry asks that, not its client (3.17)."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
