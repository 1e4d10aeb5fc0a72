"""More than one process: ``processes`` of a command, ``nodes`` of a group. Both divide the same limits."""
