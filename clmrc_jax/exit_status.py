"""Exit statuses that programs here read from each other; imports nothing, not even JAX."""

PREEMPTED = 75  # after SIGTERM: saved, run again (EX_TEMPFAIL of sysexits.h)
