"""Eight virtual CPU devices, set before jax is first imported, and the shared fixtures."""

import os
import pathlib
import subprocess
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest  # noqa: E402
from etils import epath  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test marked `alone` runs in a process of its own.

    The profiler, for one, crashes where the TPU compiler of other tests has been loaded.
    """
    if pyfuncitem.get_closest_marker("alone") is None or "CLMRC_ALONE" in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", pyfuncitem.nodeid, "-c", "tests/pytest.ini"]
    done = subprocess.run(
        [*command, "--rootdir=.", "-q", "--slow"],
        cwd=pyfuncitem.config.rootpath,
        env=os.environ | {"CLMRC_ALONE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.fixture(scope="session")
def repository():
    """Root folder of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real public data sets beside the checkout; a user's clone has none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real data sets (../shared/data) is not here")
    return folder


@pytest.fixture
def in_bucket(tmp_path, monkeypatch):
    """A gs:// path of a stand-in for a bucket, see helpers/bucket.py; it is empty.

    The folder of local copies is tmp_path/cache.
    """
    import bucket

    monkeypatch.setenv("CLMRC_JAX_CACHE", str(tmp_path / "cache"))
    bucket.install(tmp_path / "objects")
    yield epath.Path("gs://bucket/some")
    bucket.uninstall()
