"""How the benchmarks take the time of a device that works behind the program's back."""

import time
from collections.abc import Callable


def seconds_per_call(call: Callable, wait: Callable, repeats: int, calls: int) -> list[float]:
    """`repeats` times the seconds of a call, each the mean over `calls` calls sent one after another.

    wait(result of call): returns when the device is done with it. Two calls go before, which compile
    and warm up.
    """
    for _ in range(2):
        wait(call())
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        seconds.append((time.perf_counter() - begin) / calls)
    return seconds
