"""Command-line flags that several commands share, and how a user's mistake is said: one line, exit code 2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from harness.experiment import Cut, SettingsError

if TYPE_CHECKING:
    from harness.workspace import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = "Exit codes: 0 all done, 1 a run failed, 2 wrong usage or unusable input, 130 interrupted."
INTERRUPTED = 130


def one_line_errors(function: Function) -> Function:
    """Turns what a user can get wrong into one line and exit code 2; every such error of ours is a ValueError."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if not type(error).__module__.startswith("harness."):
                raise
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.UsageError(f"{error.filename or 'file system'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            click.echo(
                "\nInterrupted. Nothing that was finished is lost; the same command goes on from here.", err=True
            )
            raise SystemExit(INTERRUPTED) from None

    return wrapped  # type: ignore[return-value]


def _decorated(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


folders = _decorated(
    click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
                 help="Folder of the records; they are under DIR/runs."),
)  # fmt: skip

toggle_files = click.option(
    "--toggles", "toggle_files", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Python file that defines toggles of your own.",
)  # fmt: skip

devices = _decorated(
    click.option("--strategy", default="one_device", show_default=True,
                 type=click.Choice(["one_device", "mirrored", "tpu"]), help="TensorFlow's distribution strategy."),
    click.option("--tpu", metavar="NAME",
                 help="Name or address of the TPU, 'local' on a TPU VM; implies --strategy tpu."),
)  # fmt: skip

training = _decorated(
    click.option("--profile", "profile_name", default="quick", show_default=True, metavar="NAME",
                 help="quick: small networks on generated clips, minutes on a laptop. paper: the paper's recipe."),
    click.option("--data", metavar="DIR", help="Folder of a prepared data set, or 'embedded' for the generated clips."),
    devices,
    click.option("--replicas", type=click.IntRange(min=1), metavar="N",
                 help="Devices that share a batch; part of a run's identity, since batch normalization is not "
                      "synchronised.  [default: 1; on a TPU the profile's, 128 for paper]"),
    click.option("--batch", type=click.IntRange(min=1), metavar="N",
                 help="Another global batch; steps still follow from the epochs."),
    click.option("--steps", type=click.IntRange(min=1), metavar="N",
                 help="Cut training to N steps, to try things out."),
    click.option("--validation-videos", type=click.IntRange(min=1), metavar="N",
                 help="Evaluate the first N videos only."),
)  # fmt: skip


def strategy_of(strategy: str, tpu: str | None) -> str:
    """The strategy that --strategy and --tpu mean together.

    Raises:
      SettingsError: they contradict each other.
    """
    if tpu and strategy == "mirrored":
        raise SettingsError("--tpu and --strategy mirrored: choose one of them")
    return "tpu" if tpu else strategy


def workspace(
    results: Path,
    profile_name: str,
    data: str | None,
    strategy: str,
    tpu: str | None,
    replicas: int | None,
    batch: int | None,
    steps: int | None,
    validation_videos: int | None,
    purpose: Literal["train", "plan", "draw"] = "train",
    parent: str | None = None,
) -> Workspace:
    """The workspace that the shared flags describe.

    `purpose`: to plan, the paper's data need not be at hand; to draw, nothing but records need be, and flags that are
    given narrow the choice among them (`data` is then a name or the beginning of a fingerprint). `parent` is the id of
    the run to start from, or the beginning of it.

    Raises:
      SettingsError, ManifestError: flags or data that cannot be used.
      RecordError: there is no such parent.
    """
    from harness import workspace as workspaces
    from harness.store import Store

    store, profile = Store(results), workspaces.profile(profile_name)
    if purpose == "draw":
        given = {"replicas": replicas, "batch": batch, "steps": steps}
        return workspaces.recorded(store, profile, data, given, validation_videos)
    strategy = strategy_of(strategy, tpu)
    return workspaces.Workspace(
        profile=profile,
        data=workspaces.data_set(data, profile, results, planning_only=purpose == "plan"),
        cut=Cut(steps, batch, validation_videos),
        replicas=replicas or (profile.replicas if strategy == "tpu" else 1),
        store=store,
        strategy=strategy,
        tpu=tpu,
        parent=store.find(parent).identity if parent else None,
    )
