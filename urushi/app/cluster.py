"""`--cluster`: what commands do on a Ray cluster instead of in this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import require
from urushi.app.output import Output
from urushi.errors import TargetError
from urushi.names import counted

if TYPE_CHECKING:
    from urushi.inference.batch import BatchReport, Job

__all__ = ["Accelerators", "ClusterAddress", "ClusterGroup", "check_cluster"]

ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Have it done on Ray: ray starts one on this machine, auto takes the one that runs "
        "on it, ray://HOST:10001 and HOST:6379 are others.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="With --cluster: so many workers at most; default: as many as its nodes have room "
        "for, each with --threads cores, or 1.",
    ),
]


def _above_nothing(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value:g} is no share, expected more than 0, such as 0.25.")
    return value


Accelerators = Annotated[
    float | None,
    typer.Option(
        "--accelerators",
        callback=_above_nothing,
        metavar="SHARE",
        help="With --cluster: of an accelerator for each worker; at 0.25 four share one. Default: "
        "1 where nodes have some.",
    ),
]


def check_cluster(
    address: str | None, with_it: Mapping[str, object], never: Mapping[str, bool] = {}
) -> None:
    """Refuses what cannot be done on a cluster, before anything is read.

    Args:
        address: of the cluster; None where nothing is to be done on one.
        with_it: options that are for a cluster alone, with their values.
        never: options that go with none, and whether they are given.
    """
    if address is None:
        given = [name for name, value in with_it.items() if value is not None]
        if given:
            raise typer.BadParameter(f"{given[0]} is for a cluster: give --cluster, too.")
        return
    given = [name for name, is_given in never.items() if is_given]
    if given:
        raise typer.BadParameter(f"{given[0]} is for this process alone: leave out --cluster.")
    require(("ray", "pyarrow", "pandas"), "--cluster", "cluster")
    from urushi.cluster.connection import check_address

    check_address(address)


@dataclass(frozen=True, kw_only=True)
class ClusterGroup:
    """Whether pictures are restored on a cluster, and with what of it."""

    cluster: ClusterAddress = None
    workers: Workers = None
    accelerators: Accelerators = None

    def check(self, never: Mapping[str, bool]) -> None:
        """Refuses what cannot be done on a cluster.

        Args:
            never: options that go with none, and whether they are given.
        """
        with_it = {"--workers": self.workers, "--accelerators": self.accelerators}
        check_cluster(self.cluster, with_it, never)

    def runner(
        self, out: Output, output: str, *, device: str, threads: int | None
    ) -> "Callable[..., BatchReport]":
        """What does as `run_batch` does, on the cluster."""
        assert self.cluster is not None
        return _run_on(
            out,
            self.cluster,
            output,
            device=device,
            threads=threads,
            workers=self.workers,
            accelerators=self.accelerators,
        )


def _run_on(
    out: Output,
    address: str,
    output: str,
    *,
    device: str,
    threads: int | None,
    workers: int | None,
    accelerators: float | None,
) -> "Callable[..., BatchReport]":
    """What does as `run_batch` does, on a cluster."""

    def run(
        restorer: Any, jobs: "Sequence[Job]", *, on_event: Any, options: Any, staged: Any
    ) -> "BatchReport":
        from urushi.cluster.connection import joined
        from urushi.cluster.manifest import Manifest
        from urushi.cluster.plan import pool_of
        from urushi.cluster.restoring import restore_on_cluster

        if any(job.target == Path(output) for job in jobs):
            raise TargetError(
                f"{output} is a file name: with --cluster give a folder, which gets a manifest",
                usage=True,
            )
        with joined(address) as cluster:
            pool = pool_of(
                cluster.nodes,
                device=device,
                cpus=threads or 1,
                accelerators=accelerators,
                workers=workers,
            )
            manifest = Manifest(Path(output), staged.place_of(Path(output)))
            where = f"{pool.workers} worker{'s' if pool.workers > 1 else ''} on {pool.device}"
            out.say(f"{counted(len(jobs), 'picture')} for {where}; manifest: {manifest}")
            report = restore_on_cluster(
                restorer,
                jobs,
                pool,
                manifest,
                options=options,
                on_event=on_event,
                staged=staged,
            )
        if report.deaths:
            out.say(
                f"{report.deaths} times a worker died, and another one went on with what it had "
                "begun"
            )
        return report

    return run
