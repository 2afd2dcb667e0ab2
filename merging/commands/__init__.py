"""The commands, a file each: `declare` adds its arguments, `run` does it and returns the status.

Results go to stdout (`--json`: one object), progress and messages to stderr. What a command needs
is imported when it runs, so that `--help` answers at once.
"""
