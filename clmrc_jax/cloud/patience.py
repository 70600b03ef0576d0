"""How long errors of Google Cloud are borne: what may pass by itself must not end a long run."""

import time
from collections.abc import Callable
from typing import TypeVar

from clmrc_jax.cloud.gcloud import PASSING, CloudError, say

Result = TypeVar("Result")


class Patience:
    """Bears errors in a row.

    seconds: from the first of them on.  poll: seconds until the next try.  kinds: of those that
    may pass; any other is raised at once.
    """

    def __init__(self, seconds: float, poll: float, kinds: frozenset[str] = PASSING):
        self.seconds, self.poll, self.kinds = seconds, poll, kinds
        self._since: float | None = None

    def bear(self, error: CloudError) -> None:
        """Says the error and waits until the next try; raises it when there is to be none."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if error.kind not in self.kinds or now - self._since > self.seconds:
            raise error
        left = self.seconds - (now - self._since)
        say(f"{error}\n  trying again every {self.poll:g} s, for {left:.0f} s more")
        time.sleep(self.poll)

    def over(self) -> None:
        """It went well: the next error is the first in a row."""
        self._since = None


def patiently(action: Callable[[], Result], patience: Patience) -> Result:
    """What `action` returns, once it does. Raises the CloudError that is not to be borne."""
    while True:
        try:
            result = action()
        except CloudError as error:
            patience.bear(error)
        else:
            patience.over()
            return result
