"""Notices of a metadata server, here a local one, become SIGTERM."""

import contextlib
import http.server
import threading
import time
import urllib.parse

import pytest

from clmrc_jax import maintenance, notice


class Metadata(http.server.ThreadingHTTPServer):
    """Answers as Google's server does; `values` by key, `change` gives one a new value."""

    daemon_threads = True

    def __init__(self, **values):
        super().__init__(("localhost", 0), Handler)
        self.values = {name.replace("_", "-"): value for name, value in values.items()}
        self.changed, self.number = threading.Condition(), dict.fromkeys(self.values, 0)
        self.asked = []

    def change(self, key, value):
        with self.changed:
            self.values[key], self.number[key] = value, self.number[key] + 1
            self.changed.notify_all()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url, server = urllib.parse.urlsplit(self.path), self.server
        folder, key = url.path.rsplit("/", 1)
        assert folder == "/computeMetadata/v1/instance"
        assert self.headers["Metadata-Flavor"] == "Google"
        query = dict(urllib.parse.parse_qsl(url.query))
        with server.changed:
            server.asked.append((key, "wait_for_change" in query))
            server.changed.notify_all()
            if "wait_for_change" in query:
                known = int(query["last_etag"])
                seconds = float(query["timeout_sec"])  # then the answer is what it was
                server.changed.wait_for(lambda: server.number[key] != known, timeout=seconds)
            value, tag = server.values[key], server.number[key]
        self.send_response(200)
        self.send_header("ETag", str(tag))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has gone
            self.wfile.write(value.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(maintenance_event=.., preempted=..) -> a running server, known to the program."""
    running = []

    def start(**values):
        server = Metadata(**{"maintenance_event": "NONE", "preempted": "FALSE"} | values)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{server.server_port}")
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def wait_for(server, *wanted):
    """Returns when the server has been asked all that."""
    with server.changed:
        assert server.changed.wait_for(lambda: set(wanted) <= set(server.asked), timeout=30)


WAITING = (("maintenance-event", True), ("preempted", True))


@pytest.mark.parametrize(
    ("key", "value"),
    [("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")],
)
def test_a_notice_ends_the_program_as_sigterm_does(serve, capfd, key, value):
    server = serve()
    with pytest.raises(notice.Preempted), notice.heeded(), maintenance.watched(on_tpu=False):
        wait_for(server, *WAITING)
        server.change(key, value)
        time.sleep(60)
    assert f"metadata server: {key} is {value}" in capfd.readouterr().err


def test_what_was_said_before_the_start_and_its_end_are_no_news(serve):
    server = serve(maintenance_event="TERMINATE_ON_HOST_MAINTENANCE")
    with notice.heeded(), notice.saves_first(), maintenance.watched(on_tpu=False):
        wait_for(server, *WAITING)
        server.asked.clear()
        server.change("maintenance-event", "NONE")
        wait_for(server, WAITING[0])
        assert not notice.told()


def test_a_notice_that_stands_is_no_news_when_the_servers_time_is_up(serve, monkeypatch):
    monkeypatch.setattr(maintenance, "WAIT_SECONDS", 0.1)
    server = serve(maintenance_event="TERMINATE_ON_HOST_MAINTENANCE", preempted="TRUE")
    with notice.heeded(), notice.saves_first(), maintenance.watched(on_tpu=False):
        for _ in range(3):
            server.asked.clear()
            wait_for(server, *WAITING)
        assert not notice.told()


def test_a_server_that_does_not_answer_is_said_once_and_asked_again(serve, monkeypatch, capfd):
    server = serve(preempted="FALSE")
    host = f"localhost:{server.server_port}"
    real, calls = maintenance._open, []

    def failing(request, timeout):
        calls.append(request.full_url)
        if len(calls) < 6:
            raise OSError("no route to host")
        return real(request, timeout=timeout)

    monkeypatch.setattr(maintenance, "_open", failing)
    monkeypatch.setattr(maintenance, "_RETRY_SECONDS", 0.01)
    with notice.heeded(), maintenance.watched(on_tpu=False):
        wait_for(server, *WAITING)
    said = capfd.readouterr().err
    for key in maintenance.QUIET:
        assert said.count(f"no notice of {key} will come: the metadata server {host}") == 1


def test_a_laptop_asks_nobody(monkeypatch):
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr(maintenance, "_open", lambda *_, **__: pytest.fail("asked"))
    before = threading.active_count()
    with maintenance.watched(on_tpu=False):
        assert threading.active_count() == before
