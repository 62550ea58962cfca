"""Command-line flags that several commands share, and the conversion of errors to one line and an exit code."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import signal
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from harness.config import devices as devices_
from harness.config.experiment import Overrides, SettingsError
from harness.config.sharing import GRACE, RETRIES, Sharing
from harness.system import paths
from harness.system.errors import HarnessError
from harness.system.paths import Folder

if TYPE_CHECKING:
    from harness.config.designs import Design, Question
    from harness.config.studies import Study
    from harness.config.toggles import Toggle, ToggleValue
    from harness.planning.workspace import Workspace

# What a workspace is wanted for.
Purpose = Literal["train", "plan", "draw"]
Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = (
    "Exit codes: 0 all done; 1 a run failed or a record cannot be used, the others are done; 2 wrong usage, unusable "
    "input, or a folder that cannot be written; 75 it cannot go on here at present (the other workers of "
    "multi_worker_mirrored are gone, the disk is full, the storage does not answer): start it again; 130 stopped by "
    "Ctrl-C; 143 stopped by SIGTERM or a preempted TPU. After the last three the same command goes on from the last "
    "checkpoint."
)
INTERRUPTED = 128 + signal.SIGINT
_GO_ON = "Nothing that was finished is lost; the same command goes on from here."


# The keys of harness.config.designs.DESIGNS; a copy, so that --help need not load that module.
DESIGN_NAMES = (
    "additive", "reverse", "one-at-a-time", "leave-one-out", "factorial", "fractional-factorial", "shapley",
)  # fmt: skip


class Mistake(click.ClickException):
    """A mistake of the user, shown as one line; exit code 2."""

    exit_code = HarnessError.exit_code


class Temporary(Mistake):
    """An error that may be gone when the same command is started again, shown as one line; exit code 75."""

    exit_code = os.EX_TEMPFAIL


def one_line_errors(function: Function) -> Function:
    """Makes a command print the errors that a user may meet as one line, and end with their exit code."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except HarnessError as error:
            kind = Temporary if error.exit_code == Temporary.exit_code else Mistake
            raise kind(str(error)) from error
        except OSError as error:
            raise Mistake(f"{error.filename or 'file system'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            click.echo(f"\nInterrupted. {_GO_ON}", err=True)
            raise SystemExit(INTERRUPTED) from None
        except Exception as stopped:
            status = getattr(stopped, "exit_status", None)  # as of orchestrator.Stopped, which --help need not load
            if status is None:
                raise
            click.echo(f"Stopped ({stopped}). {_GO_ON}", err=True)
            raise SystemExit(status) from None

    return wrapped  # type: ignore[return-value]


def _decorated(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _address(_: click.Context, parameter: click.Parameter, value: str | None) -> Folder | None:
    """Converts a flag's text to a folder or bucket; whether a bucket can be used shows only when it is."""
    if value is None:
        return None
    folder = paths.path_of(value)
    if isinstance(folder, Path) and folder.exists() and not folder.is_dir():
        raise click.BadParameter(f"{value}: is a file; expected a folder", param=parameter)
    return folder


results = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
    help="Folder of the records, which are under DIR/runs, and of what is made of them.",
)  # fmt: skip
folders = _decorated(
    results,
    click.option("--runs", metavar="ADDRESS", callback=_address,
                 help="Folder or bucket of the runs, such as gs://lab/table2, where --results is not to hold them: "
                      "records, checkpoints and predictions.  [default: RESULTS/runs]"),
)  # fmt: skip

toggle_files = click.option(
    "--toggles", "toggle_files", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Python file that defines toggles of your own.",
)  # fmt: skip

devices = _decorated(
    click.option("--strategy", type=click.Choice(devices_.STRATEGIES),
                 help="TensorFlow's distribution strategy.  [default: one_device]"),
    click.option("--tpu", metavar="NAME|local",
                 help="Name or address of the TPU, 'local' on a TPU VM; implies --strategy tpu."),
    click.option("--topology", metavar="NAME",
                 help="The TPU's slice, such as v3:8x8 or v3-128.  [default: TPU_ACCELERATOR_TYPE]"),
    click.option("--worker-hosts", metavar="HOST:PORT,...",
                 help="For multi_worker_mirrored: every worker, the same list on each; the same command runs on all of "
                      "them, and all see one --results folder.  [default: TF_CONFIG]"),
    click.option("--task-index", type=click.IntRange(min=0), metavar="N",
                 help="Which of the workers this one is, from 0; the first writes the results."),
)  # fmt: skip

cell = _decorated(
    click.argument("changes", nargs=-1, metavar="[KEY[=VALUE]]..."),
    click.option("--depth", metavar="N", help="50, 101, 152, 200, 270 or 300 layers.  [default: 50]"),
    click.option("--frames", metavar="N", help="32, 48 or 64 frames of a clip, 32x2, 48x2.  [default: 32]"),
    click.option("--resolution", metavar="N", help="224, 256 or 288 pixels, training crop.  [default: 224]"),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
)  # fmt: skip

_profile = click.option(
    "--profile", "profile_name", default="quick", show_default=True, metavar="NAME",
    help="quick: small networks on generated clips, minutes on a laptop. paper: the paper's recipe.",
)  # fmt: skip
_data_set = click.option(
    "--data", metavar="DIR", help="Folder of a prepared data set, or 'embedded' for the generated clips."
)
data_sets = click.option(
    "--data", "data", multiple=True, metavar="DIR",
    help="Folder of a prepared data set, or 'embedded' for the generated clips. Several, where studies ask on several: "
         "each takes the one with as many classes as its own.",
)  # fmt: skip


def _once(_: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> str | None:
    """Refuses a flag that is given twice, since click would silently take the last one."""
    if len(value) > 1:
        raise click.BadParameter(f"given {len(value)} times: expected one", param=parameter)
    return value[0] if value else None


pre_training = click.option(
    "--pretrain-data", "pretrain_data", metavar="DIR", multiple=True, callback=_once,
    help="Folder of the prepared data set that studies pre-train on which ask for it (table5).  [default: generated "
         "clips of other motion, where the others are generated too]",
)  # fmt: skip

_how_to_train = _decorated(
    devices,
    click.option("--replicas", type=click.IntRange(min=1), metavar="N",
                 help="Devices that share a batch; part of a run's identity, since batch normalization is not "
                      "synchronised.  [default: one a worker; on a TPU the profile's, 128 for paper]"),
    click.option("--batch", type=click.IntRange(min=1), metavar="N",
                 help="Another global batch; steps still follow from the epochs."),
    click.option("--steps", type=click.IntRange(min=1), metavar="N",
                 help="Cut training to N steps, to try things out."),
    click.option("--validation-videos", type=click.IntRange(min=1), metavar="N",
                 help="Evaluate the first N videos only."),
    click.option("--keep-checkpoints", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
                 help="Training checkpoints kept of a run while it trains; of a finished one its weights are kept."),
    click.option("--no-preflight", "preflight", is_flag=True, default=True, flag_value=False,
                 help="Train on a TPU without first compiling for it, and what does not fit too."),
    click.option("--repeat-short-videos", is_flag=True,
                 help="Play a video that is shorter than a clip again from its start, as the Garden does, instead of "
                      "refusing it."),
)  # fmt: skip

training = _decorated(_profile, _data_set, _how_to_train)
training_on_several = _decorated(_profile, data_sets, pre_training, _how_to_train)


wandb = click.option(
    "--wandb", "wandb_mode", type=click.Choice(["online", "offline", "off"]), default="offline", show_default=True,
    help="Mirror to W&B: send it, keep it under --results to be sent later with 'wandb sync', or neither.",
)  # fmt: skip


def finite(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuses "nan", which click's ranges accept."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number", param=parameter)
    return value


storage = click.option(
    "--storage", metavar="URL", envvar="HARNESS_STORAGE", show_envvar=True,
    help="Optuna storage that workers share: postgresql+psycopg://HOST/DATABASE across machines; the password as "
         "PGPASSWORD or in ~/.pgpass.  [default: RESULTS/queue.db, SQLite, for one machine]",
)  # fmt: skip

sharing = _decorated(
    storage,
    click.option("--retries", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
                 help="Try a run that failed so often again; a preemption costs none."),
    click.option("--lease", type=click.FloatRange(min=3), callback=finite, metavar="SECONDS",
                 help="A worker that was silent for so long has lost its run to the others.  [default: 120, or the "
                      "storage's]"),
    click.option("--grace-period", "grace", type=click.FloatRange(min=1), default=120, show_default=True,
                 callback=finite, metavar="SECONDS",
                 help="After SIGTERM, time to save a checkpoint and give the run back; less than the scheduler's."),
)  # fmt: skip

queue = _decorated(storage, results)

plots = click.option(
    "--plots", type=click.Path(path_type=Path), default=Path("plots"), show_default=True, help="Folder of the figures."
)

_seeds = click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
                      help="Train each row with seeds 0 to N-1.")  # fmt: skip
margin = click.option(
    "--margin", type=click.FloatRange(0, 100, min_open=True), default=0.5, show_default=True, callback=finite,
    metavar="POINTS", help="A difference of less than so many points of top-1 does not matter: what the equivalence "
    "tests test.",
)  # fmt: skip
repeats = _decorated(_seeds, margin)

designs = _decorated(
    _seeds,
    click.option("--design", "design_names", multiple=True, type=click.Choice(DESIGN_NAMES),
                 help="Ask the same toggles in this way; several are planned as one, and runs they share are trained "
                      "once.  [default: the study's own rows]"),
    click.option("--factors", metavar="LIST",
                 help="The toggles that the designs ask about, in this order, such as ls,sd=0.1,ep.  [default: the "
                      "study's]"),
    click.option("--base", metavar="LIST",
                 help="What every run of the designs has, such as depth=101,frames=48.  [default: the study's first "
                      "row]"),
    click.option("--orderings", type=click.IntRange(min=2), metavar="N",
                 help="shapley: orders of the toggles that each seed draws, an even number.  [default: 4]"),
    margin,
)  # fmt: skip


def refuse_others(known: Container[str], reason: str) -> None:
    """Refuses flags that a command was given and would ignore.

    Args:
      known: names of the parameters that the command reads.
      reason: why it ignores the others.

    Raises:
      SettingsError: such a flag was given; the message names the first one.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name not in known:
            raise SettingsError(f"{parameter.opts[0]}: {reason}")


def refuse_idle_pre_training(studies: Sequence[Study], given: str | None) -> None:
    """Refuses --pretrain-data if no study pre-trains on a separate data set.

    Args:
      studies: the studies.
      given: value of the flag.

    Raises:
      SettingsError: no study would use the flag; the message names the studies.
    """
    from harness.config.stages import PRE_TRAINING

    sets = {stage.dataset for study in studies for row in study.rows for stage in row.stages}
    if given is not None and PRE_TRAINING not in sets:
        names = " and ".join(study.name for study in studies)
        raise SettingsError(f"--pretrain-data {given}: {names} would not look at it: no row pre-trains on other data")


def views_of(text: str) -> tuple[int, int]:
    """Returns the numbers of clips and crops in --views.

    Raises:
      SettingsError: the text is not of the form CLIPSxCROPS.
    """
    match = re.fullmatch(r"(\d{1,3})x([13])", text)
    if not match or int(match[1]) < 1:
        raise SettingsError(f"--views {text!r}: expected CLIPSxCROPS with 1 or 3 crops, such as 10x3 or 1x1")
    return int(match[1]), int(match[2])


def applied(
    changes: tuple[str, ...], axes: Mapping[str, str | None], known: Mapping[str, Toggle]
) -> tuple[ToggleValue, ...]:
    """Returns the toggles and axes that the flags of :data:`cell` give.

    Raises:
      ToggleError: a toggle is unknown, or cannot take its value.
    """
    from harness.config.toggles import parse

    scale = [f"{key}={value}" for key, value in axes.items() if value is not None]
    return tuple(parse(text, known) for text in (*changes, *scale))


def question(
    study: Study,
    names: tuple[str, ...],
    factors: str | None,
    base: str | None,
    orderings: int | None,
    seeds: int,
    known: Mapping[str, Toggle],
) -> Question:
    """Returns the question that the flags of :data:`designs` ask of a study.

    Raises:
      ToggleError: a toggle of a list is unknown or cannot take its value.
      SettingsError: the number of orderings is odd, or no design uses it.
    """
    from harness.config.designs import Question
    from harness.config.toggles import parse

    if orderings is not None and "shapley" not in names:
        raise SettingsError(f"--orderings {orderings}: is for --design shapley")
    orderings = 4 if orderings is None else orderings
    if orderings % 2:
        raise SettingsError(f"--orderings {orderings}: expected an even number, each order is drawn with its reverse")
    chosen, common = (
        default if text is None else tuple(parse(part.strip(), known) for part in text.split(","))
        for text, default in ((factors, study.factors), (base, study.base))
    )
    # Leave out axes at their defaults, which every run has anyway.
    common = tuple(
        applied_toggle
        for applied_toggle in common
        if not (applied_toggle.toggle.axis and applied_toggle.value == applied_toggle.toggle.default)
    )
    return Question(study, chosen, common, tuple(range(seeds)), orderings)


def designs_of(
    names: tuple[str, ...], asked: Question, rows: str | None, factors: str | None, base: str | None
) -> tuple[Design, ...]:
    """Returns the designs that the flags name; none if the study's own rows are wanted.

    Raises:
      SettingsError: a flag was given that makes sense only with, or only without, --design.
    """
    from harness.config import designs as designs_

    if names and rows:
        raise SettingsError("--rows: names rows of the study itself; leave it out with --design")
    if not names and not (factors is None and base is None):
        raise SettingsError(
            f"{'--base' if factors is None else '--factors'}: is what designs ask; name one with --design"
        )
    return designs_.build(names, asked) if names else ()


def _named(data: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the data sets that --data names."""
    return data if isinstance(data, tuple) else () if data is None else (data,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The flags that describe a training, as the commands which plan, train or draw share them.

    Attributes:
      results: the results folder.
      profile_name: name of the profile.
      data: folders of prepared data sets, or "embedded"; to draw, a name or the beginning of a fingerprint.
      strategy, tpu, worker_hosts, task_index, topology: on which devices, see :mod:`harness.config.devices`.
      replicas: over how many replicas a batch is split; None for the profile's or the devices' own number.
      batch, steps, validation_videos: see :class:`harness.config.experiment.Overrides`.
      keep_checkpoints: training checkpoints kept of a run while it trains.
      repeat_short_videos: whether a video that is shorter than a clip is played again from its start.
      preflight: whether programs are compiled for a TPU before anything is trained.
      storage, retries, lease, grace: see :class:`harness.config.sharing.Sharing`.
      parent: id of the run to start from, or the beginning of it.
      runs: folder or bucket of the runs; None for the results folder's own.
      pretrain_data: folder of the data set that studies pre-train on.
    """

    results: Path
    profile_name: str
    data: str | tuple[str, ...] | None
    strategy: str | None
    tpu: str | None
    worker_hosts: str | None
    task_index: int | None
    replicas: int | None
    batch: int | None
    steps: int | None
    validation_videos: int | None
    keep_checkpoints: int
    repeat_short_videos: bool
    topology: str | None = None
    preflight: bool = True
    storage: str | None = None
    retries: int = RETRIES
    lease: float | None = None
    grace: float = GRACE
    parent: str | None = None
    runs: Folder | None = None
    pretrain_data: str | None = None


def workspace(given: TrainingOptions, purpose: Purpose = "train") -> Workspace:
    """Returns the workspace that the shared flags describe.

    Args:
      given: the flags.
      purpose: to plan, the paper's data need not be at hand; to draw, nothing but records need be, and flags that are
        given narrow the choice among them.

    Raises:
      SettingsError, ManifestError: flags or data that cannot be used.
      RecordError: there is no such parent.
    """
    from harness.analysis import trainings
    from harness.planning import workspace as workspace_
    from harness.store.run_store import Store

    if given.results.exists() and not given.results.is_dir():
        raise SettingsError(f"--results {given.results}: is a file; expected a folder")
    store, profile = Store(given.results, given.runs), workspace_.profile(given.profile_name)
    if purpose == "draw":
        if isinstance(given.data, tuple):
            raise TypeError("to draw, one data set is chosen at a time")
        narrowing = {"replicas": given.replicas, "batch": given.batch, "steps": given.steps}
        return trainings.recorded(store, profile, given.data, narrowing, given.validation_videos)
    devices = devices_.devices_from_flags(
        given.strategy, given.tpu, given.worker_hosts, given.task_index, os.environ, given.topology
    )
    if purpose == "train" and devices.strategy == "one_device" and (given.replicas or 1) > 1:
        raise SettingsError(f"--replicas {given.replicas}: one_device gives one; choose another --strategy")
    first, *further = workspace_.data_sets(_named(given.data), profile, given.results, planning_only=purpose == "plan")
    # A plan without data and devices describes the paper's own training, so it takes the profile's replicas.
    only_planned = purpose == "plan" and not given.data and not profile.embedded and given.strategy is None
    return workspace_.Workspace(
        profile=profile,
        data=first,
        further=tuple(further),
        pre_training=workspace_.to_pre_train_on(
            given.pretrain_data, profile, given.results, planning_only=purpose == "plan"
        ),
        cut=Overrides(given.steps, given.batch, given.validation_videos),
        replicas=given.replicas or (profile.replicas if devices.tpu or only_planned else devices.workers),
        store=store,
        devices=devices,
        parent=store.find(given.parent).identity if given.parent else None,
        keep=given.keep_checkpoints,
        repeat_short=given.repeat_short_videos,
        preflight=given.preflight,
        sharing=Sharing(given.storage, given.retries, given.lease, given.grace),
    )
