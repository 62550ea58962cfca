"""The root of the errors that a user may meet."""


class HarnessError(Exception):
    """Something that a user can get wrong, or find broken; the message is one line for the user.

    It says what happened, where, and what to do next. Commands print it without a traceback, and end with its code. An
    error of another class is a fault of the program: its traceback is shown.

    Attributes:
      exit_code: what the command ends with: 2, or 75 where the same command may well succeed later.
    """

    exit_code = 2
