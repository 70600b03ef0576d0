"""The notice that Google gives before it takes a machine away, passed on as SIGTERM.

The metadata server of a Cloud VM knows of host maintenance and of the preemption of a spot
machine, some 30 s and more ahead. A change of either while the program runs is its SIGTERM. (What
stood there at the start is no news: started again meanwhile, a run uses the time that is left.)
"""

import contextlib
import http.client
import os
import signal
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator

HOST_VARIABLE = "GCE_METADATA_HOST"  # as Google's own libraries call it
HOST = "metadata.google.internal"
QUIET = {"maintenance-event": "NONE", "preempted": "FALSE"}  # the values that mean nothing
WAIT_SECONDS = 60  # the server answers when the value changes, at the latest after so long
_RETRY_SECONDS = 30.0
# The server is on the same machine, no proxy is to be asked.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@contextlib.contextmanager
def watched(on_tpu: bool) -> Iterator[None]:
    """Inside the block a notice sends this process SIGTERM, once for each kind.

    on_tpu: whether this is a TPU VM. Elsewhere a metadata server is looked for only when the
    environment variable GCE_METADATA_HOST names one ("host" or "host:port").
    """
    host, over = os.environ.get(HOST_VARIABLE) or (HOST if on_tpu else ""), threading.Event()
    for key in QUIET if host else ():
        threading.Thread(target=_watch, args=(host, key, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(host: str, key: str, over: threading.Event) -> None:
    """Waits for the value of `key` to become a notice; says so once when nobody answers."""
    etag, former, said = None, None, False
    while not over.is_set():
        try:
            value, etag = _read(host, key, etag)
        except (OSError, http.client.HTTPException) as error:
            if not said:
                text = f"no notice of {key} will come: the metadata server {host} says {error}"
                print(f"{text}; asking on", file=sys.stderr, flush=True)
            said = True
            over.wait(_RETRY_SECONDS)
            continue
        former, before = value, former
        # The server also answers when the time is up, with what stood there already.
        if before not in (None, value) and value != QUIET[key] and not over.is_set():
            print(f"metadata server: {key} is {value}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _read(host: str, key: str, etag: str | None) -> tuple[str, str]:
    """Value and tag; without a tag at once, else as soon as the value is another one."""
    url = f"http://{host}/computeMetadata/v1/instance/{key}"
    if etag is not None:
        waiting = {"wait_for_change": "true", "last_etag": etag, "timeout_sec": WAIT_SECONDS}
        url += f"?{urllib.parse.urlencode(waiting)}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    with _open(request, timeout=2 * WAIT_SECONDS) as answer:
        return answer.read().decode().strip(), answer.headers.get("ETag", "0")
