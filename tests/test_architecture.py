"""The house rules of the package: imports point downwards, files and functions stay small."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "clmrc_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
PYTHON = sorted(
    path
    for folder in ("clmrc_jax", "configs", "launch", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if "golden" not in path.parts
)
# What the files of a folder may import of ours, besides their own folder.
BOTTOM = {"files", "progress"}
ALLOWED = {
    "files": set(),
    "command_line": set(),
    "exit_status": set(),
    "progress": set(),
    "sharding": {"files"},
    "models": set(),
    "data": BOTTOM,
    "evaluate": {"data.languages", "files"},
    "train": BOTTOM | {"models", "data", "evaluate", "sharding", "hosts", "notice"},
    "retrieval": BOTTOM | {"models", "data", "evaluate", "sharding", "hosts"},
    "translate": BOTTOM | {"models", "data", "train", "sharding"},
    "notice": {"exit_status"},
    "maintenance": set(),
    "hosts": {"files", "exit_status", "notice"},
    "huge_pages": set(),
    "backends": set(),
    "rendezvous": {"files"},
    "preflight": {"files", "rendezvous", "backends"},
    "cloud": {"files", "exit_status"},
    "pipelines": BOTTOM
    | {"models", "data", "evaluate", "sharding", "train", "retrieval", "translate", "preflight"}
    | {"hosts", "notice", "maintenance", "exit_status", "cloud"},
}


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Full names of everything a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(path):
    """(function node, is it public) of a file, methods included."""

    def visit(node, public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                shown = public and not child.name.startswith("_")
                if not isinstance(child, ast.ClassDef):
                    yield child, shown
                # What is inside a function is nobody's interface.
                yield from visit(child, shown and isinstance(child, ast.ClassDef))
            else:
                yield from visit(child, public)

    yield from visit(ast.parse(path.read_text("utf-8")), True)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if here == "__init__":
        return
    for name in imports(path):
        package, _, inside = name.partition(".")
        if package in ("configs", "launch", "tests"):
            pytest.fail(f"{name_of(path)} imports {name}, which is above it")
        if package == "clmrc_jax" and inside.split(".")[0] != here:
            allowed = any(f"{inside}.".startswith(f"{unit}.") for unit in ALLOWED[here])
            assert allowed, f"{name_of(path)} must not import {name}"


@pytest.mark.parametrize("folder", ["data", "evaluate"])
def test_data_and_evaluate_never_import_jax(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & {"jax", "flax", "optax", "orbax"}, name_of(path)


def test_ml_collections_stays_at_the_edge():
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] != "pipelines":
            assert "ml_collections" not in {name.split(".")[0] for name in imports(path)}, path


def test_nothing_needs_tensorflow_or_pytorch():
    for path in FILES + sorted((ROOT / "launch").glob("*.py")):
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & {"tensorflow", "torch", "clu"}, name_of(path)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_files_and_functions_are_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400, "split the file by noun"
    if path.parent.name == "configs":
        return  # there a function is a table
    for node, _ in functions(path):
        lines = node.end_lineno - node.lineno + 1
        assert lines <= 60, f"{name_of(path)}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_and_modules_are_documented(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree), "a module says what it is about"
    for node, public in functions(path):
        long = node.end_lineno - node.lineno + 1 > 5
        public &= node.name != "setup"  # Linen's hook: its class is documented
        if public and long and not ast.get_docstring(node):
            pytest.fail(f"{name_of(path)}: {node.name} has no docstring")


def test_no_file_is_named_after_nothing():
    vague = {"utils", "helpers", "common", "misc", "util", "helper"}
    assert not [name_of(path) for path in PYTHON if path.stem in vague]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_unpickles(path):
    """Loading a data file must never run code."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            called = f"{getattr(node.value, 'id', '')}.{node.attr}"
            assert called not in ("pickle.load", "pickle.loads", "torch.load"), node.lineno
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert getattr(node.value, "value", None) is False, node.value.lineno
    assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(imports(path))


# Wiring whose only meaningful test is that of what it wires.
TESTED_BY = {
    "exit_status.py": "launch/test_slurm.py",
    "hosts.py": "distributed/test_processes.py",
    "pipelines/plan_devices.py": "pipelines/test_plan.py",
    "pipelines/batch_checks.py": "pipelines/test_mesh_checks.py",
    "pipelines/compile_advice.py": "pipelines/test_compile.py",
    "pipelines/compile_reader.py": "pipelines/test_compile.py",
    "pipelines/compile_steps.py": "pipelines/test_compile.py",
    "pipelines/compile_tables.py": "pipelines/test_compile.py",
    "pipelines/models.py": "pipelines/test_cora.py",
    "pipelines/results.py": "pipelines/test_cora.py",
    "pipelines/train.py": "pipelines/test_cora.py",
    "pipelines/plan_tables.py": "pipelines/test_plan.py",
    "retrieval/index.py": "retrieval/test_scann_index.py",
    "retrieval/numpy_index.py": "retrieval/test_exact.py",
}


def test_every_file_has_its_test_file():
    missing = []
    for path in FILES:
        inside = path.relative_to(PACKAGE)
        own = str(inside.with_name(f"test_{inside.stem}.py"))
        test = ROOT / "tests" / TESTED_BY.get(str(inside), own)
        as_a_whole = test.parent.parent / f"test_{inside.parent.name}.py"
        if inside.stem != "__init__" and not (test.exists() or as_a_whole.exists()):
            missing.append(str(inside))
    assert not missing, f"no test file for {', '.join(missing)}"


def test_every_test_file_has_its_subject():
    """A test file whose subject was renamed or removed must follow it."""
    subjects = {str(path.relative_to(PACKAGE).with_suffix("")) for path in FILES}
    subjects |= {str(path.parent.relative_to(PACKAGE)) for path in FILES}
    subjects |= {f"launch/{path.stem}" for path in (ROOT / "launch").iterdir()}
    subjects |= {f"benchmarks/{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")}
    subjects |= {"architecture", "configs/configs", "documents", "setup"}
    subjects |= {f"distributed/{x}" for x in ("meshes", "processes")}  # no module's
    for path in (ROOT / "tests").rglob("test_*.py"):
        inside = path.relative_to(ROOT / "tests")
        assert str(inside.with_name(f"{inside.stem.removeprefix('test_')}")) in subjects, inside
