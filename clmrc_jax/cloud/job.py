"""What runs on the workers: shell scripts as pure functions, and the states they report.

A job outlives the connection that started it. On every worker, in ~/clmrc_job:
`command`, `run.sh`, `pid`, `log`, and when it has ended `exit` (its status); `stopped` says that
somebody asked it to stop. The code lies in ~/clmrc_jax, its environment in ~/clmrc_jax/.venv.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from clmrc_jax.exit_status import PREEMPTED

ABORTED = 134  # SIGABRT: how JAX ends a process after another one died
ARCHIVE = "clmrc_jax.tar.gz"
PACKAGES = "clmrc_packages.txt"
_MARK = "clmrc_job"

_JOB = 'job="$HOME/clmrc_job"; '
# By the command line, since a process id may by now be another program's, or a zombie's.
_ALIVE = (
    '[ -s "$job/pid" ] && [ ! -f "$job/exit" ] && '
    'grep -qsF "$job/run.sh" "/proc/$(cat "$job/pid")/cmdline"'
)
# A process and, through shells, what these started: the programs, without helpers of their own.
_PROGRAMS = """programs() {
  local child; echo "$1"
  case "$(readlink "/proc/$1/exe")" in
    */bash|*/dash|*/sh|*/zsh|*/ksh) for child in $(pgrep -P "$1"); do programs "$child"; done;;
  esac
}"""
_TERMINATE = f'if {_ALIVE}; then kill -TERM $(programs "$(cat "$job/pid")"); fi; true'


@dataclasses.dataclass(frozen=True)
class Worker:
    """state: idle (no job), running, lost (ended without a status, e.g. a restarted VM), ended.

    code: exit status when ended.  stopped: it was asked to stop.  line: the log's last line.
    """

    host: str
    state: str
    code: int = 0
    stopped: bool = False
    line: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.  kind: done, failed, preempted, stopped.  host, code: of the cause."""

    kind: str
    host: str = ""
    code: int = 0


def setup_script(extras: str, pinned: bool = False) -> str:
    """Unpacks the code and makes the environment from setup.py's extras ("tpu,gcs").

    uv brings its own Python: the VM images come with one that is too old.
    pinned: in the versions of ~/clmrc_packages.txt.
    """
    versions = f' -c "$HOME/{PACKAGES}"' if pinned else ""
    return "\n".join(
        (
            "set -e",
            'export PATH="$HOME/.local/bin:$PATH"',
            "command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh",
            'mkdir -p "$HOME/clmrc_jax" && cd "$HOME/clmrc_jax"',
            # No file of an older version stays; what the user made there (runs/) does.
            f'tar -tzf "$HOME/{ARCHIVE}" | cut -d/ -f1 | sort -u | xargs rm -rf --',
            f'tar -xzf "$HOME/{ARCHIVE}"',
            "[ -x .venv/bin/python ] || uv venv --quiet --python 3.12 .venv",
            f"uv pip install --quiet --python .venv/bin/python{versions} -e '.[{extras}]'",
        )
    )


def packages_script() -> str:
    """Prints the versions that are installed, as `setup_script` takes them."""
    path = 'export PATH="$HOME/.local/bin:$PATH"; cd "$HOME/clmrc_jax"'
    return f"{path}; uv pip freeze --quiet --exclude-editable --python .venv/bin/python"


def start_script(command: str) -> str:
    """Starts a command in the background, with the log in ~/clmrc_job; not twice.

    command: a shell command; it runs in ~/clmrc_jax with the environment's Python first. Fails
    when another command runs. After SIGTERM the shell ends with its program, with the program's
    status; the job lasts until all programs have saved, also when a shell among them died first.
    """
    shell = f"trap 'exit $?' TERM\n{command}"
    others = "$(exec pgrep -r R,S,D,T -s $$)"  # in the session: run.sh itself, and what else?
    inner = "\n".join(
        (
            'job="$HOME/clmrc_job"; echo $$ > "$job/pid"; told=; trap told=1 TERM',
            'cd "$HOME/clmrc_jax"; export PATH="$HOME/clmrc_jax/.venv/bin:$PATH" PYTHONUNBUFFERED=1',
            f"bash -o pipefail -c {shlex.quote(shell)}",
            "code=$?",
            f'while [ "$told" ] && set -- {others} && [ $# -gt 1 ]; do sleep 0.2; done',
            'echo $code > "$job/exit.new"; mv "$job/exit.new" "$job/exit"',
        )
    )
    busy = '"is busy with: $(cat "$job/command"); wait for it, or launch/tpu_vm.py stop"'
    return "\n".join(
        (
            f'{_JOB}mkdir -p "$job"',
            f"if {_ALIVE}; then",
            f'  [ "$(cat "$job/command")" = {shlex.quote(command)} ] && exit 0',
            f'  echo "ERROR: $HOSTNAME "{busy} >&2; exit 1',
            "fi",
            'rm -f "$job/exit" "$job/pid" "$job/stopped"',
            f"printf '%s\\n' {shlex.quote(command)} > \"$job/command\"",
            f"printf '%s\\n' {shlex.quote(inner)} > \"$job/run.sh\"",
            'echo "--- started $(date -u +%FT%TZ)" >> "$job/log"',
            'setsid nohup bash "$job/run.sh" >> "$job/log" 2>&1 < /dev/null &',
            'for i in $(seq 600); do [ -s "$job/pid" ] && exit 0; sleep 0.1; done',
            'echo "ERROR: $HOSTNAME: the job did not start within a minute" >&2; exit 1',
        )
    )


def poll_script() -> str:
    """Prints one line: host, state, code, whether stopped, and the log's last line."""
    return "\n".join(
        (
            f"{_JOB}state=idle; code=0; stopped=0",
            # In this order: the job may end between two of these questions.
            f"if {_ALIVE}; then state=running",
            'elif [ -f "$job/exit" ]; then state=ended; code=$(cat "$job/exit")',
            'elif [ -f "$job/command" ]; then state=lost; fi',
            '[ -f "$job/stopped" ] && stopped=1',
            'line=$(tail -c 2000 "$job/log" 2>/dev/null | tr "\\r" "\\n" | grep -v "^ *$" | tail -n 1)',
            f'echo "{_MARK} $HOSTNAME $state $code $stopped $line"',
        )
    )


def command_script() -> str:
    """Prints the command of the worker's job, if any."""
    return 'cat "$HOME/clmrc_job/command" 2>/dev/null || true'


def stop_script() -> str:
    """Sends SIGTERM to the programs: they save and end with status 75. Marks it as wanted.

    Prints a line where a job runs, for `parse_stopped`.
    """
    said = f'if {_ALIVE}; then echo "{_MARK} $HOSTNAME stops"; fi'
    mark = '[ ! -d "$job" ] || touch "$job/stopped"'
    return "\n".join((f"{_JOB}{said}", mark, _PROGRAMS, _TERMINATE))


def parse_stopped(output: str) -> list[str]:
    """The hosts on which `stop_script` found a job."""
    return re.findall(rf"^{_MARK} (\S+) stops$", output, re.MULTILINE)


def end_script() -> str:
    """Like `stop_script`, but nobody asked for it: the job does not count as stopped."""
    return f"{_JOB}\n{_PROGRAMS}\n{_TERMINATE}"


def kill_script() -> str:
    """Ends the job with SIGKILL, helpers and all. Fails when a process is still there after 10 s."""
    left = 'ps -s "$pid" -o pid=,stat=,args='
    return "\n".join(
        (
            f"{_JOB}if {_ALIVE}; then",
            '  pid=$(cat "$job/pid"); pkill -KILL -s "$pid"  # run.sh leads a session of its own',
            "  for i in $(seq 100); do",
            """    ps -s "$pid" -o stat= | grep -qv '^Z' || exit 0; sleep 0.1""",
            "  done",
            f'  echo "ERROR: $HOSTNAME: SIGKILL does not end $({left}); delete the slice" >&2; exit 1',
            "fi",
        )
    )


def logs_script(lines: int, follow: bool) -> str:
    """Prints the log's last lines, and (follow) what is added to it."""
    return f'tail -n {lines} {"-F " if follow else ""}"$HOME/clmrc_job/log"'


def parse_workers(output: str) -> list[Worker]:
    """The workers in the output of `poll_script`, by host name."""
    pattern = rf"^{_MARK} (\S+) (\w+) (\d+) ([01]) ?(.*)$"
    found = re.findall(pattern, output, re.MULTILINE)
    workers = [
        Worker(host, state, int(code), s == "1", line) for host, state, code, s, line in found
    ]
    return sorted(workers, key=lambda worker: _by_number(worker.host))


def _by_number(host: str):
    """t1v-n-0123-w-10 comes after t1v-n-0123-w-9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", host)]


def judge(workers: Sequence[Worker]) -> Outcome | None:
    """How the job ended, or None while a worker still runs.

    One worker that was preempted or lost takes all others with it, so 75 and lost come before
    the errors of those that were left alone; among errors, a program's own comes before signals,
    and JAX's abort after somebody else's death comes last.
    """
    if any(worker.state == "running" for worker in workers):
        return None
    if all(worker.state == "ended" and not worker.code for worker in workers):
        return Outcome("done")
    if any(worker.stopped for worker in workers):
        return Outcome("stopped", code=PREEMPTED)
    for worker in workers:
        if worker.code == PREEMPTED or worker.state in ("lost", "idle"):
            return Outcome("preempted", worker.host, PREEMPTED)
    failed = [worker for worker in workers if worker.code]
    cause = min(failed, key=lambda worker: (worker.code >= 128, worker.code == ABORTED))
    return Outcome("failed", cause.host, cause.code)
