"""python -m harness.import_wandb: brings records back from W&B, or from a folder of its offline runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.config.experiment import content_hash
from harness.store import records
from harness.store.attempts import FOLDER
from harness.store.records import Evaluation, RecordError, RunRecord
from harness.system import files
from harness.system.paths import Folder
from harness.tracking import wandb_files
from harness.tracking.wandb import RUN_RECORD
from harness.tracking.wandb_files import Artifact

if TYPE_CHECKING:
    from harness.store.run_store import Store

_EXAMPLES = """
\b
Examples:
  python -m harness.import_wandb /mnt/slice/results/wandb
  python -m harness.import_wandb --project our-group/r3d-ablations --group table2-quick
"""
_RECORD = "record.json"
_PROTOCOL = r"\d+x\d+@\d+(-first\d+)?"
_NAMES = re.compile(
    rf"record\.json|({FOLDER}/\d{{1,9}}/)?predictions-{_PROTOCOL}\.parquet|evaluation-{_PROTOCOL}\.json"
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An artifact that claims to hold a run's record; nothing in it is trusted yet.

    Attributes:
      name: what to call it in messages.
      metadata: the artifact's metadata: "identity", "group", "sha256" (file name -> hash).
      names: names of its files.
      content: reads a file, given its name.
    """

    name: str
    metadata: Mapping[str, Any]
    names: tuple[str, ...]
    content: Callable[[str], bytes]


@dataclasses.dataclass
class Outcome:
    """The result of an import.

    Attributes:
      written, present: ids of the runs that were imported, and of those that were there already.
      refused: one line for each record or file that was not imported.
    """

    written: list[str] = dataclasses.field(default_factory=list)
    present: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--project", metavar="ENTITY/PROJECT",
              help="Fetch from this project instead; server and login are those of `wandb login`, or of WANDB_BASE_URL "
                   "and WANDB_API_KEY.")  # fmt: skip
@click.option("--group", metavar="NAME", help="Only the runs of this study, such as table2-quick.")
@options.folders
@options.one_line_errors
def main(folder: Path | None, project: str | None, group: str | None, results: Path, runs: Folder | None) -> None:
    """Writes the records that W&B mirrored, with their predictions and evaluations, into a results folder.

    FOLDER holds offline runs, at any depth, and the data/ folder beside them. Every hash is checked first; what is
    there already is never overwritten.
    """
    from harness.store.run_store import Store

    if (folder is None) == (project is None):
        raise click.UsageError("expected either FOLDER or --project")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    outcome, store = Outcome(), Store(results, runs)
    with _bundles(folder, project, group, outcome) as bundles, store.locked():
        import_all(bundles, store, outcome)
    _print_outcome(outcome, store)
    if outcome.refused:
        raise SystemExit(1)


@contextlib.contextmanager
def _bundles(
    folder: Path | None, project: str | None, group: str | None, outcome: Outcome
) -> Iterator[Sequence[Bundle]]:
    if folder is not None:
        yield chosen(of_folder(folder, outcome), group, str(folder), outcome)
        return
    with tempfile.TemporaryDirectory() as temporary:
        fetched = of_project(_api(Path(temporary)), str(project), Path(temporary), outcome)
        yield chosen(fetched, group, str(project), outcome)


def of_folder(folder: Path, outcome: Outcome) -> list[Bundle]:
    """Returns the records in the offline runs of a folder, oldest first; notes unreadable files as refused.

    Raises:
      RecordError: there is no such folder.
    """
    attempts = []
    for path in wandb_files.paths(folder):
        try:
            attempt = wandb_files.read_file(path, folder)
        except RecordError as error:
            outcome.refused.append(str(error))
        else:
            attempts += [attempt] if attempt else []
    attempts.sort(key=lambda attempt: attempt.started)
    return [_staged(item) for attempt in attempts for item in attempt.artifacts if item.type == RUN_RECORD]


def _staged(artifact: Artifact) -> Bundle:
    def content(name: str) -> bytes:
        path = artifact.files[name]
        if path is None:
            raise RecordError(f"{artifact.name}: {name}: W&B's copy of it is not in the folder")
        return path.read_bytes()

    return Bundle(artifact.name, artifact.metadata, tuple(artifact.files), content)


def of_project(api: Any, project: str, folder: Path, outcome: Outcome) -> list[Bundle]:
    """Returns the records in a project: the latest version of each run's artifact.

    Args:
      api: W&B's `Api`, or an object with its methods.
      project: "entity/project".
      folder: the folder to download into.
      outcome: notes what cannot be read as refused.

    Raises:
      RecordError: the project cannot be read.
    """
    try:
        names = [collection.name for collection in api.artifact_type(RUN_RECORD, project=project).collections()]
    except Exception as error:
        raise RecordError(f"{project}: cannot be read from W&B: {_one_line(error)}") from error
    bundles = []
    for name in names:
        try:
            bundles.append(_downloaded(name, api.artifact(f"{project}/{name}:latest", type=RUN_RECORD), folder))
        except Exception as error:
            outcome.refused.append(f"{name}: cannot be read from W&B: {_one_line(error)}")
    return bundles


def _downloaded(name: str, artifact: Any, folder: Path) -> Bundle:
    @functools.cache
    def downloaded() -> Path:
        target = folder / hashlib.sha256(name.encode()).hexdigest()
        return Path(artifact.download(root=str(target), skip_cache=True))

    def content(file: str) -> bytes:
        try:
            return (downloaded() / file).read_bytes()
        except Exception as error:
            raise RecordError(f"{name}: {file}: cannot be fetched from W&B: {_one_line(error)}") from error

    return Bundle(name, dict(artifact.metadata), tuple(artifact.manifest.entries), content)


def _api(folder: Path) -> Any:
    for kind in ("CACHE", "DATA"):
        os.environ[f"WANDB_{kind}_DIR"] = str(folder / kind.lower())
    import wandb

    base_url = os.environ.get("WANDB_BASE_URL")
    try:
        return wandb.Api(overrides={"base_url": base_url} if base_url else {}, timeout=30)
    except Exception as error:
        raise RecordError(f"W&B cannot be used: {_one_line(error)}") from error


def chosen(found: Iterable[Bundle], group: str | None, where: str, outcome: Outcome) -> list[Bundle]:
    """Returns the last bundle of each run, of the given group only unless that is None.

    Raises:
      RecordError: there is none.
    """
    of_group: dict[str, Bundle] = {}
    groups = set()
    for bundle in found:
        groups.add(str(bundle.metadata.get("group")))
        if group in (None, bundle.metadata.get("group")):
            of_group[bundle.name] = bundle
    if not groups and not outcome.refused:
        raise RecordError(f"{where}: no record of a run in it")
    if groups and not of_group:
        raise RecordError(f"group {group!r}: {where} has records of {', '.join(sorted(groups))}")
    return list(of_group.values())


def import_all(bundles: Iterable[Bundle], store: Store, outcome: Outcome) -> None:
    """Writes the records of bundles; refuses and notes one that is damaged or contradicts what is there."""
    for bundle in bundles:
        try:
            record, contents = checked(bundle)
            (outcome.written if write(record, contents, store) else outcome.present).append(record.id)
        except RecordError as error:
            outcome.refused.append(str(error))


def checked(bundle: Bundle) -> tuple[RunRecord, dict[str, bytes]]:
    """Returns the record of a bundle and the contents of its files, after checking that they agree.

    Raises:
      RecordError: they do not; the message names the bundle, the file and what was expected.
    """
    contents = _hashed(bundle)
    where = f"{bundle.name}: {_RECORD}"
    record = records.from_json(_json(contents[_RECORD], where), where)
    if record.identity != bundle.metadata.get("identity"):
        raise RecordError(f"{where}: is the record of run {record.id}, not of the run that the artifact names")
    if record.identity != content_hash({"settings": record.settings, **record.identity_content}):
        raise RecordError(f"{where}: its settings are not those that its identity {record.id} is the hash of")
    added = [_added(bundle, name, contents, record) for name in contents if name.startswith("evaluation-")]
    for evaluation in (*record.evaluations.values(), *added):
        _check_predictions(evaluation, contents, bundle.name)
    return record, contents


def write(record: RunRecord, contents: Mapping[str, bytes], store: Store) -> bool:
    """Writes the files of a record, the record last, and returns whether any was missing.

    Raises:
      RecordError: the run is recorded, and one of its files has other content; nothing was written.
    """
    folder, recorded = store.folder(record.id), store.has(record.id)
    missing = [name for name in contents if not recorded or not (folder / name).is_file()]
    for name in sorted(set(contents) - set(missing)):
        if (folder / name).read_bytes() != contents[name]:
            raise RecordError(f"{folder / name}: is there already with other content; of this run nothing was imported")
    for name in sorted(missing, key=lambda name: name == _RECORD):
        # Files that an interrupted run left without a record may be overwritten.
        (files.create if name == _RECORD else files.replace)(folder / name, contents[name])
    return bool(missing)


def _hashed(bundle: Bundle) -> dict[str, bytes]:
    """Returns the contents of a bundle's files as hashed; reads nothing if one has no name of a record's files."""
    expected = bundle.metadata.get("sha256")
    for name in bundle.names:
        if not _NAMES.fullmatch(name):
            raise RecordError(f"{bundle.name}: {name!r}: no file of a record has such a name")
    if not isinstance(expected, Mapping) or set(expected) != set(bundle.names) or _RECORD not in expected:
        raise RecordError(f"{bundle.name}: its files are not those whose hashes it names")
    contents = {name: bundle.content(name) for name in bundle.names}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != expected[name]:
            raise RecordError(f"{bundle.name}: {name}: changed since it was mirrored (SHA-256 differs)")
    return contents


def _added(bundle: Bundle, name: str, contents: Mapping[str, bytes], record: RunRecord) -> Evaluation:
    where = f"{bundle.name}: {name}"
    identity, evaluation = records.evaluation_from_json(_json(contents[name], where), where)
    if identity != record.identity:
        raise RecordError(f"{where}: belongs to run {identity[:16]}, expected {record.id}")
    return evaluation


def _check_predictions(evaluation: Evaluation, contents: Mapping[str, bytes], bundle: str) -> None:
    name = evaluation.predictions
    if name not in contents:
        raise RecordError(f"{bundle}: {name}: missing, though the record names it")
    if hashlib.sha256(contents[name]).hexdigest() != evaluation.predictions_sha256:
        raise RecordError(f"{bundle}: {name}: not the predictions that the record names (SHA-256 differs)")


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise RecordError(f"{where}: not JSON ({error})") from None


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _print_outcome(outcome: Outcome, store: Store) -> None:
    for line in outcome.refused:
        click.echo(f"REFUSED {line}", err=True)
    for heading, ids in (("Imported", outcome.written), ("Already there", outcome.present)):
        click.echo(f"{heading}: {len(ids)}" + (f" ({', '.join(ids)})" if ids else ""))
    click.echo(f"Refused: {len(outcome.refused)}. Records are in {store.runs}")


if __name__ == "__main__":
    main()
