"""Which checks run when: the quick ones before every training and preparation, all of them in `doctor`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch

from backend.errors import BadDataError, ConfigError, DiskError
from training.assemble import batch_bytes, fitting_workers, wanted_workers
from training.doctor import disk, gpu, host, trackers, volumes
from training.doctor.dataset import check_dataset
from training.doctor.estimate import estimate, to_json
from training.doctor.finding import Finding, failed, note, ok, warning
from training.doctor.job import Job
from training.doctor.trial import Pace, Saving, try_saving, try_steps
from training.doctor.weights import check_weights
from training.machine import available_cpus, available_memory, free_shared_memory, memory_limit, total_memory
from training.reporting.gpu import gpu_name
from training.reporting.units import fine_duration

Checks = Iterator[Finding]


def before_training(job: Job) -> Checks:
    """The checks that take under a second. Raises ConfigError where the settings make no model."""
    yield from _gpu(job)
    yield from _volumes(job)
    yield from _space(disk.spaces([*_run_needs(job), *_data_needs(job)]))
    yield from _unknown_download(job)
    yield from _host(job)
    yield from trackers.check_trackers(job.config)


def before_preparing(job: Job) -> Checks:
    """The quick checks that matter where nothing is trained."""
    yield volumes.check_datasets(job.datasets, must_write=job.fetches)
    yield from _space(disk.spaces(_data_needs(job)))
    yield from _unknown_download(job)
    yield host.check_clock(host.now(), host.newest_time(job.output))


def everything(job: Job, refused: BadDataError | None, price: float | None, check_stop: Callable[[], None]) -> Checks:
    """All checks, the trial last; it is left out where a check before it failed."""
    fine = True
    for finding in _all_but_trial(job, refused):
        fine &= finding.state != "failed"
        yield finding
        check_stop()
    if fine:
        yield from _trial(job, price, check_stop)
    else:
        yield note("trial", "left out, because a check failed", "mend that first")


def _all_but_trial(job: Job, refused: BadDataError | None) -> Checks:
    try:
        yield from before_training(job)
    except ConfigError as error:
        yield failed("settings", str(error), "")
    if job.device.type == "cuda":
        processes = gpu.gpu_processes(os.getpid(), gpu_name(job.device))
        yield gpu.check_neighbours(job.gpu, processes, torch.cuda.memory_reserved())
    yield check_dataset(job, refused)
    if (weights := check_weights(job)) is not None:
        yield weights


def _gpu(job: Job) -> Checks:
    asked = job.config.training.device
    device = gpu.check_device(asked, job.gpu, str(job.dtype).removeprefix("torch."))
    yield device
    if device.state != "failed" and job.device.type == "cuda":
        yield gpu.check_driver(job.gpu)
        yield gpu.check_video_memory(job.gpu, job.sizes)


def _volumes(job: Job) -> Checks:
    yield volumes.check_output(job.output)
    yield volumes.check_datasets(job.datasets, must_write=job.fetches)
    if job.in_image:
        for name, folder in (("output volume", job.output), ("datasets volume", job.datasets)):
            mount = volumes.mount_of(folder)
            yield volumes.check_mounted(name, folder, mount, job.unmounted_ok, must_last=folder == job.output)


def _run_needs(job: Job) -> list[disk.Need]:
    training = job.config.training
    every = training.keep_every_epochs
    milestones = sum(phase.epochs for phase in job.task.phases()) // every if every else 0
    kept = disk.size_of(job.run / "checkpoints") if job.run else 0
    ema = training.ema_decay is not None
    return disk.run_needs(job.sizes, job.output, training.keep_checkpoints, ema, milestones, kept)


def _data_needs(job: Job) -> list[disk.Need]:
    return [
        disk.Need("download and unpacking", job.datasets, job.fetch_bytes or 0),
        disk.Need("prepared data", job.cache_dir, job.glance.cache_bytes),
    ]


def _unknown_download(job: Job) -> Checks:
    if job.fetch_bytes is None:
        yield note(
            "download",
            "its size is unknown, so that the disk was checked without it",
            "give size and unpacked_size in the manifest",
        )


def _space(spaces: list[disk.Space]) -> Checks:
    return (disk.check_space(space) for space in spaces)


def _host(job: Job) -> Checks:
    kind, batch, free = job.device.type, batch_bytes(job.task, job.glance.facts), free_shared_memory()
    wanted = wanted_workers(job.task, job.device)
    chosen = fitting_workers(wanted, free, batch)
    workers = int(chosen.value)
    need = host.memory_need(job.sizes, kind, batch, workers, _prepare_workers(job))
    yield host.check_memory(available_memory(), total_memory(), memory_limit(), need)
    yield host.check_processors(available_cpus(), os.cpu_count() or 1, kind, workers)
    yield host.check_shared_memory(free, batch, wanted, chosen)
    yield host.check_clock(host.now(), host.newest_time(job.output))


def _prepare_workers(job: Job) -> int:
    if job.glance.exact:
        return 0
    asked = getattr(job.config.data, "prepare_workers", "auto")
    return available_cpus() if asked == "auto" else int(asked)


def _trial(job: Job, price: float | None, check_stop: Callable[[], None]) -> Checks:
    try:
        pace, bench = try_steps(job, check_stop)
    except (ConfigError, RuntimeError, MemoryError) as error:
        yield failed("trial step", str(error).splitlines()[0] if str(error) else repr(error), "")
        return
    yield _pace(job, pace)
    check_stop()
    try:
        saving = try_saving(job, bench)
    except DiskError as error:
        yield failed("trial checkpoint", str(error), "", code=error.exit_code)
        return
    yield _saving(saving)
    yield _to_the_end(job, pace, saving, price)


def _pace(job: Job, pace: Pace) -> Finding:
    place = job.gpu.name if job.device.type == "cuda" else f"the CPU ({torch.get_num_threads()} threads)"
    rows = f"{pace.rows} of {pace.batch_rows} rows of a batch at once" if pace.share == 1 else "a row"
    row, step = fine_duration(pace.row_seconds), fine_duration(pace.step_seconds)
    told = f"{row} a row, {step} a step of {pace.batch_rows} rows on {place}"
    how = f"timed on {rows}"
    if pace.share < 1:
        how = f"scaled from a trial with {100 * pace.share:.2g} % of a row's arithmetic"
    facts = {
        "row_seconds": pace.row_seconds,
        "step_seconds": pace.step_seconds,
        "rows_timed": pace.rows,
        "rows_in_batch": pace.batch_rows,
        "share_of_row_timed": pace.share,
    }
    if not pace.finite:
        return warning("trial step", f"{told}; the loss was not finite", "try training.amp=off", facts)
    return ok("trial step", f"{told}; {how}", facts)


def _saving(saving: Saving) -> Finding:
    saved, loaded = fine_duration(saving.save_seconds), fine_duration(saving.load_seconds)
    return ok(
        "trial checkpoint",
        f"{saving.size / 1e6:,.0f} MB written in {saved}, read back and verified in {loaded}",
        {"bytes": saving.size, "save_seconds": saving.save_seconds, "load_seconds": saving.load_seconds},
    )


def _to_the_end(job: Job, pace: Pace, saving: Saving, price: float | None) -> Finding:
    found = estimate(job.task, job.glance, pace, saving, price)
    if found is None:
        return note("to the end", "unknown, because the number of training items is", "prepare the data first")
    return ok("to the end", str(found), to_json(found))
