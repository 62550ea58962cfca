"""The root of the errors that a user may meet."""


class HarnessError(Exception):
    """An error that a user can cause, or find; the message is one line for the user.

    The message says what happened, where, and what to do next. Commands print it without a traceback and end with its
    exit code. An error of another class is a fault of the program: its traceback is shown.

    Attributes:
      exit_code: exit code of the command: 2, or 75 if the same command may well succeed later.
    """

    exit_code = 2
