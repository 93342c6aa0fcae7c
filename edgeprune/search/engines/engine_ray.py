"""Trials as Ray tasks, on a local cluster or an existing one.

Each worker process makes the trials that it gets as `engine.LocalEngine` would: a trial depends on its job and on the
work alone, so that where it is made changes nothing but how sums round on another number of threads. A worker that dies
is replaced, and its trial made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeprune.number_checks import check_whole
from edgeprune.search.trial.job import Job, Made, Work
from edgeprune.search.trial.maker import Maker

_RETRIES = 3  # of a trial whose worker died


class RayEngine:
    """Makes trials in worker processes.

    Args:
        work: what trials are made from. A model with classes of your own needs them registered with Keras, in a module
            that the workers can import.
        address: of a cluster that runs, such as `"auto"` or `"ray://host:10001"`; None to start one on this machine.
        num_workers: how many trials are made at once on a cluster that is started here.
        cpus_per_trial: processors that each trial occupies.
        gpus_per_trial: GPUs that each trial occupies; a fraction shares one.

    Raises:
        ConnectionError: there is no cluster at the address.
        ImportError: Ray is not installed.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        work: Work,
        *,
        address: str | None = None,
        num_workers: int = 2,
        cpus_per_trial: float = 1.0,
        gpus_per_trial: float = 0.0,
    ) -> None:
        check_whole("num_workers", num_workers, 1)
        ray = imported_ray()
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            started: dict[str, Any] = {"address": address}
            if address is None:
                started |= {"num_cpus": max(1, round(num_workers * cpus_per_trial)), "include_dashboard": False}
            ray.init(**started, log_to_driver=False, logging_level="ERROR", configure_logging=True)
        self._ray = ray
        self._work = ray.put(work)
        self._made = ray.remote(
            num_cpus=cpus_per_trial, num_gpus=gpus_per_trial, max_retries=_RETRIES, retry_exceptions=False
        )(_made_in_worker)

    def made(self, jobs: Sequence[Job]) -> Iterator[Made]:
        """Make trials, as many at once as there are workers, and return them in their order."""
        # The work is passed inside a list, so that a worker reads it once and not for each trial.
        waiting = [self._made.remote([self._work], self._work.hex(), job) for job in jobs]
        for one in waiting:
            yield self._result(one)

    def _result(self, waiting: Any) -> Made:
        errors = self._ray.exceptions
        try:
            found: Made = self._ray.get(waiting)
        except errors.OutOfMemoryError as error:
            return Made("oom", error=f"OutOfMemoryError: {' '.join(str(error).split())[:300]}")
        except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
            return Made("failed", error=f"the worker died {_RETRIES + 1} times: {type(error).__name__}")
        return found

    def close(self) -> None:
        """End the cluster that was started here."""
        if self._owns_cluster:
            self._ray.shutdown()


def imported_ray() -> Any:
    """Ray.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'edgeprune[ray]'") from error
    return ray


# In a worker: what makes trials of the work that it was last asked for.
_makers: dict[str, Maker] = {}


def _made_in_worker(work: Sequence[Any], key: str, job: Job) -> Made:
    if key not in _makers:
        _makers.clear()
        _makers[key] = Maker(imported_ray().get(work[0]))
    return _makers[key].made(job)
