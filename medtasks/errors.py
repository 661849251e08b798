"""The one exception for bad input: the command line prints it as one line and exits with code 2."""


class InputError(Exception):
    """Something the user gave is wrong. The message names the thing and the mend, in one line."""
