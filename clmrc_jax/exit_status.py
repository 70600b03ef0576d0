"""Exit statuses that programs here read from each other; imports nothing, not even JAX."""

BAD_INPUT = 2  # what a user can mend; the message says how
PREEMPTED = 75  # after SIGTERM: saved, run again (EX_TEMPFAIL of sysexits.h)
