"""Errors that a user can mend, each with the exit code that a restart loop can act on.

`WorkerError` carries one clear line: what was found (file, field or key), what was expected, what to do.
The command line prints that line and exits with `exit_code`; nobody sees a traceback for it.
Anything else that escapes is a bug (exit code 70).
"""

from __future__ import annotations

DONE = 0
VERIFICATION_FAILED = 1
USAGE = 2
BAD_DATA = 65
SOURCE_UNAVAILABLE = 69
BUG = 70
IO_ERROR = 74
INTERRUPTED = 75
DIVERGED = 76
CONFIG = 78
BUDGET_SPENT = 79


class WorkerError(Exception):
    """A failure with one line for the user and an exit code for the machine."""

    exit_code = BUG


class VerificationError(WorkerError):
    """Something is not what the record says."""

    exit_code = VERIFICATION_FAILED


class UsageError(WorkerError):
    """The command line cannot be carried out as it was given."""

    exit_code = USAGE


class BadDataError(WorkerError):
    """A file, a folder or a dataset is not what the task needs."""

    exit_code = BAD_DATA


class SourceUnavailableError(WorkerError):
    """A dataset's sources cannot be reached now; a later try may succeed."""

    exit_code = SOURCE_UNAVAILABLE


class DiskError(WorkerError):
    """A disk is full, read-only or failing."""

    exit_code = IO_ERROR


class InterruptedRunError(WorkerError):
    """The run was asked to stop; what it had done is saved and the same command continues it."""

    exit_code = INTERRUPTED


class BudgetSpentError(InterruptedRunError):
    """The hours or the money meant for the run are used up; what it had done is saved and a larger budget continues."""

    exit_code = BUDGET_SPENT


class TakenOverError(InterruptedRunError):
    """Another machine went on with the run, so this one has no business with it any more."""

    exit_code = CONFIG


class DivergedError(WorkerError):
    """Loss or gradients stayed non-finite; the last good checkpoint is kept."""

    exit_code = DIVERGED


class ConfigError(WorkerError):
    """A setting is unknown, of the wrong type, out of range or without effect."""

    exit_code = CONFIG
