"""The exceptions that are meant for people.

Everything a user can mend is a `UserError`; the command line prints it without a traceback and exits
with its `exit_code`. Every other exception is a defect of alphagrid and propagates.
"""


class UserError(Exception):
    """A mistake in what the user gave: a specification, an option, an environment variable.

    `message` says what is wrong and where; `hint` says what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SystemRefused(UserError):
    """The cluster or the operating system refused something: sbatch, a full disk, a missing right."""

    exit_code = 3
