"""`urushi restore --cluster`: the same pictures, restored by the workers of a Ray cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import require
from urushi.app.output import Output

if TYPE_CHECKING:
    from urushi.inference.batch import BatchReport, Job

__all__ = ["Accelerators", "ClusterAddress", "Workers", "check_cluster", "run_on"]

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
Accelerators = Annotated[
    float | None,
    typer.Option(
        "--accelerators",
        metavar="SHARE",
        help="With --cluster: of an accelerator for each worker; at 0.25 four share one. Default: "
        "1 where nodes have some.",
    ),
]


def check_cluster(
    address: str | None,
    workers: int | None,
    accelerators: float | None,
    output: str | None,
    others: Mapping[str, bool],
) -> None:
    """Refuses what cannot be done on a cluster, before anything is read.

    Args:
        address, workers, accelerators: the options here.
        output: of the command.
        others: options that go with no cluster, and whether they are given.
    """
    given = {"--workers": workers is not None, "--accelerators": accelerators is not None}
    if address is None:
        for name, is_given in given.items():
            if is_given:
                raise typer.BadParameter(
                    f"{name} is for workers of a cluster: give --cluster, too."
                )
        return
    for name, is_given in others.items():
        if is_given:
            raise typer.BadParameter(f"{name} is for one process: leave out --cluster, or it.")
    if output is None:
        raise typer.BadParameter("--cluster restores into a folder: give -o FOLDER.")
    require(("ray", "pyarrow", "pandas"), "--cluster", "cluster")
    from urushi.cluster.connection import check_address

    check_address(address)


def run_on(
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
        restorer: Any, jobs: "Sequence[Job]", *, on_event: Any, **options: Any
    ) -> "BatchReport":
        from urushi.cluster.connection import joined
        from urushi.cluster.manifest import Manifest
        from urushi.cluster.plan import pool_of
        from urushi.cluster.restoring import restore_on_cluster
        from urushi.inference.held import Options

        with joined(address) as cluster:
            pool = pool_of(
                cluster.nodes,
                device=device,
                cpus=threads or 1,
                accelerators=accelerators,
                workers=workers,
            )
            manifest = Manifest(Path(output))
            where = f"{pool.workers} worker{'s' if pool.workers > 1 else ''} on {pool.device}"
            out.say(f"{len(jobs)} pictures for {where}; manifest: {manifest.path}")
            report = restore_on_cluster(
                restorer, jobs, pool, manifest, options=Options(**options), on_event=on_event
            )
        if report.deaths:
            out.say(
                f"{report.deaths} times a worker died, and another one went on with what it had "
                "begun"
            )
        return report

    return run
