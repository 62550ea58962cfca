"""Devices that a run is trained on: the distribution strategy and, with several machines, the role of each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from harness.config.experiment import SettingsError

MULTI_WORKER = "multi_worker_mirrored"
# Seconds that the workers of one run wait for each other at the start, and that the chief may be silent. A preempted
# machine is back by then.
WAIT = 600.0
STRATEGIES = ("one_device", "mirrored", MULTI_WORKER, "tpu")
_HOST = re.compile(r"[^\s,:]+:\d{1,5}")


class DevicesError(SettingsError):
    """The machine lacks the requested devices, so every run of a study would fail."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where a run is trained. Only the number of replicas can change a result.

    Attributes:
      strategy: name of the distribution strategy, as the Garden's distribution utility knows it.
      tpu: name or address of the TPU, "local" on a TPU VM, None without one.
      worker_hosts: "host:port" of every worker of `multi_worker_mirrored`, the same list on each; empty otherwise.
      task_index: index of this process among them, from 0.
      topology: name of the TPU's slice, "v3:8x8"; None where it is not known.
    """

    strategy: str = "one_device"
    tpu: str | None = None
    worker_hosts: tuple[str, ...] = ()
    task_index: int = 0
    topology: str | None = None

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes results: the only one, or the first of several."""
        return self.task_index == 0

    @property
    def workers(self) -> int:
        """Number of processes that train together."""
        return max(1, len(self.worker_hosts))


def devices_from_flags(
    strategy: str | None,
    tpu: str | None,
    worker_hosts: str | None,
    task_index: int | None,
    environment: Mapping[str, str],
    topology: str | None = None,
) -> Devices:
    """Returns the devices that the flags of a command describe.

    Args:
      strategy: --strategy, None where it was not given.
      tpu: --tpu, None where it was not given.
      worker_hosts: --worker-hosts, "host:port,host:port".
      task_index: --task-index.
      environment: environment variables. TF_CONFIG is read where --worker-hosts is missing, TPU_ACCELERATOR_TYPE where
        --topology is.
      topology: --topology, None where it was not given.

    Raises:
      SettingsError: flags contradict each other, or one needs another that is missing.
    """
    if tpu and strategy not in (None, "tpu"):
        raise SettingsError(f"--tpu and --strategy {strategy}: choose one of them")
    strategy = "tpu" if tpu else strategy or "one_device"
    if strategy == "tpu" and not tpu:
        raise SettingsError("--strategy tpu needs --tpu NAME, or --tpu local on a TPU VM")
    if strategy != "tpu" and topology:
        raise SettingsError(f"--topology {topology}: is the slice of a TPU; say --tpu NAME too")
    if strategy != MULTI_WORKER:
        if worker_hosts or task_index is not None:
            raise SettingsError(f"--worker-hosts and --task-index belong to --strategy {MULTI_WORKER}")
        return Devices(strategy, tpu, topology=_topology(topology, environment) if strategy == "tpu" else None)
    if worker_hosts is None:
        return _from_environment(environment)
    if task_index is None:
        raise SettingsError("--worker-hosts needs --task-index N: which of the hosts this process is, from 0")
    return _workers(tuple(worker_hosts.split(",")), task_index, "--worker-hosts")


def _topology(named: str | None, environment: Mapping[str, str]) -> str | None:
    """Returns the slice that --topology names, or else the one of the TPU VM's accelerator type where that is known."""
    from harness.config import slices

    if named is not None:
        return slices.slice_named(named).topology
    with contextlib.suppress(SettingsError):
        return slices.of_accelerator(environment.get("TPU_ACCELERATOR_TYPE", ""))
    return None


def _workers(hosts: tuple[str, ...], index: int, where: str) -> Devices:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise SettingsError(f"{where}: {host!r}: expected host:port, such as 10.0.0.1:2222")
    if len(set(hosts)) != len(hosts):
        raise SettingsError(f"{where}: a host:port is named twice")
    if not 0 <= index < len(hosts):
        raise SettingsError(f"{where}: task index {index}: expected 0 to {len(hosts) - 1}")
    return Devices(MULTI_WORKER, None, hosts, index)


def _from_environment(environment: Mapping[str, str]) -> Devices:
    """Returns the workers that TF_CONFIG lists; its chief, if it names one, comes first."""
    text = environment.get("TF_CONFIG")
    if not text:
        raise SettingsError(
            f"--strategy {MULTI_WORKER} needs --worker-hosts HOST:PORT,... and --task-index N on each machine, or "
            "TF_CONFIG"
        )
    try:
        content: Any = json.loads(text)
        chiefs, workers = (list(content["cluster"].get(kind, [])) for kind in ("chief", "worker"))
        kind, index = content["task"]["type"], int(content["task"]["index"])
        position = {"chief": index, "worker": len(chiefs) + index}[kind]
    except (ValueError, KeyError, TypeError, AttributeError):
        expected = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        raise SettingsError(f"TF_CONFIG: expected {expected}") from None
    return _workers((*chiefs, *workers), position, "TF_CONFIG")
