"""The parts that commands share: flags, the handling of errors, and the text of a plan."""
