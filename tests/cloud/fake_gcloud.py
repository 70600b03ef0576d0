"""A stand-in for gcloud: a TPU slice made of folders, whose workers are local bash processes.

Installed on the PATH by a test (see conftest). Its world is the folder $FAKE_CLOUD: `calls.jsonl`
(every command line), `world.json` (slice, queue, what will go wrong), `worker-N` (home of host N).
Messages and exit codes are those of the real program.

Rules in world["fail"] make calls fail: `when` ("tpu-vm ssh"), `message`, `times`, and where wanted
`code`, `containing` (text of the ssh script), `after` (so many that go well first), `done` (the
call does its work all the same, only its answer is lost).
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

FOLDER = pathlib.Path(os.environ["FAKE_CLOUD"])
WORLD = FOLDER / "world.json"
NOT_FOUND = "NOT_FOUND: Resource 'projects/p/locations/z/{}/{}' was not found"


def fail(where, message, code=1):
    print(f"ERROR: (gcloud.compute.tpus.{where}) {message}", file=sys.stderr)
    sys.exit(code)


def flag(name, default=None):
    return next((a.partition("=")[2] for a in sys.argv if a.startswith(f"--{name}=")), default)


def save(world):
    """Writes the world if this call changed it: others may be at it."""
    if world != json.loads(os.environ["FAKE_WORLD"]):
        new = WORLD.with_name(f"world.{os.getpid()}")
        new.write_text(json.dumps(world))
        new.replace(WORLD)


def homes(world):
    return [FOLDER / f"worker-{i}" for i in range(world["hosts"])]


def boot(world):
    """The slice comes up, with empty disks."""
    world["node"] = "READY"
    for home in homes(world):
        home.mkdir()


def take_away(world):
    """Everything on the slice dies at once."""
    for home in homes(world):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.killpg(int((home / "clmrc_job" / "pid").read_text()), signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def create(world, group, name):
    if world["node"] or world["request"]:
        fail(f"{group}.create", f"ALREADY_EXISTS: Resource 'projects/p/{name}' already exists")
    if group == "tpu-vm":
        boot(world)
    else:
        world["request"] = "WAITING_FOR_RESOURCES"


def describe(world, group, name):
    if group == "tpu-vm":
        if not world["node"]:
            fail("tpu-vm.describe", NOT_FOUND.format("nodes", name))
        ends = [{"ipAddress": f"10.0.0.{i}"} for i in range(world["hosts"])]
        print(json.dumps({"name": name, "state": world["node"], "networkEndpoints": ends}))
        return
    if not world["request"]:
        fail("queued-resources.describe", NOT_FOUND.format("queuedResources", name))
    state = {"state": world["request"]}
    if world["request"] == "FAILED":
        state["failedData"] = {"error": {"code": 8, "message": world["why"]}}
    print(json.dumps({"name": name, "state": state}))
    if world["request"] == "WAITING_FOR_RESOURCES":
        world["request"] = "FAILED" if world["refuse"] else "ACTIVE"
        if world["request"] == "ACTIVE":
            boot(world)
        else:
            world["why"] = world["refuse"].pop(0)


def delete(world, group, name):
    key = "node" if group == "tpu-vm" else "request"
    if not world[key]:
        fail(f"{group}.delete", NOT_FOUND.format(group, name))
    take_away(world)
    world["node"] = world["request"] = None


def workers(world):
    chosen = flag("worker", "0")
    return [i for i in range(world["hosts"]) if chosen in ("all", str(i))]


def ssh(world, group, name):
    if not world["node"]:
        fail("tpu-vm.ssh", NOT_FOUND.format("nodes", name))
    if world["node"] != "READY":
        fail("tpu-vm.ssh", f"TPU VM {name} is not in a READY state: {world['node']}")
    script, status = flag("command"), 0
    if "state=idle" in script and world["polls"] is not None:  # a look at the job
        world["polls"] -= 1
        if world["polls"] == 0:
            world |= world.pop("then")
    if world["node"] == "PREEMPTED":
        take_away(world)
        save(world)
        fail("tpu-vm.ssh", "[/usr/bin/ssh] exited with return code [255].", 255)
    for i in workers(world):
        print(f"SSH: Attempting to connect to worker {i}...", file=sys.stderr)
        if i in world["unreachable"]:
            print("Retrying: SSH command error: [/usr/bin/ssh] exited with return code [255].",
                  file=sys.stderr)  # fmt: skip
            status = status or 255
            continue
        home = FOLDER / f"worker-{i}"
        environment = os.environ | {"HOME": str(home), "HOSTNAME": f"t1v-n-fake-w-{i}"}
        code = subprocess.run(["bash", "-c", script], env=environment, cwd=home).returncode
        if code:
            print(f"##### Command execution on worker {i} failed with exit status {code}. "
                  "Continuing.", file=sys.stderr)  # fmt: skip
            status = status or code
    save(world)
    sys.exit(status)


def scp(world, group, file):
    _, _, target = sys.argv[6].partition(":")
    for i in workers(world):
        shutil.copy(file, FOLDER / f"worker-{i}" / target)


def main():
    with (FOLDER / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    os.environ["FAKE_WORLD"] = WORLD.read_text()
    world = json.loads(os.environ["FAKE_WORLD"])
    assert sys.argv[1:3] == ["compute", "tpus"], sys.argv
    group, verb, name = sys.argv[3:6]
    act = {"create": create, "describe": describe, "delete": delete, "ssh": ssh, "scp": scp}[verb]
    for rule in world["fail"]:
        meant = rule["when"] == f"{group} {verb}" and rule.get("containing", "") in flag(
            "command", ""
        )
        if not (meant and rule["times"]):
            continue
        if rule.get("after", 0):
            rule["after"] -= 1
            continue
        rule["times"] -= 1
        if rule.get("done"):
            act(world, group, name)
        save(world)
        fail(f"{group}.{verb}", rule["message"], rule.get("code", 1))
    act(world, group, name)
    save(world)


if __name__ == "__main__":
    main()
