"""The rules that keep the parts apart: who may import what, and where unsafe code may be."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "windlass"
HEAVY = ("torch", "numpy", "huggingface_hub", "transformers", "safetensors", "tqdm", "jax")
HOMES = {
    "torch": ("torch",),
    "numpy": ("numpy.py",),
    "huggingface_hub": ("hub",),
    "tqdm": ("progress.py",),
    "argparse": ("cli",),
    "matplotlib": ("plot.py",),
    "transformers": ("integrations",),
    "safetensors": ("integrations",),
}
UNSAFE_HOMES = ("rust/core/src/sys/", "rust/core/src/sys.rs", "rust/python/src/buffer.rs")


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import windlass",
        "import windlass.errors",
        "from windlass import Checkpoint",
        "from windlass import PretrainedConfig, GenerationConfig",
        "import windlass; windlass.PretrainedConfig(torch_dtype='float16').to_json_string()",
        "import windlass.modeling_utils",
        "import windlass.hub",
        "import windlass; dir(windlass); windlass.__all__; windlass.__version__",
    ],
)
def test_light_import_loads_nothing_heavy(statement: str) -> None:
    assert _modules_after(statement) & {*HEAVY, "asyncio", "argparse", "ml_dtypes"} == set()


def test_checkpoint_is_read_without_anything_heavy(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x02" + bytes(7) + b"{}")
    statement = f"import windlass; assert not windlass.Checkpoint({str(path)!r})"
    assert _modules_after(statement) & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("framework", "use"),
    [
        ("torch", "windlass.load_file"),
        ("torch", "windlass.safe_open('a.safetensors', 'pt')"),
        ("numpy", "import windlass.numpy"),
        ("numpy", "windlass.safe_open('a.safetensors', 'np')"),
    ],
)
def test_missing_framework_is_told_how_to_install(framework: str, use: str) -> None:
    code = f"import sys, windlass\nsys.modules[{framework!r}] = None\n{use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'windlass[{framework}]'" in done.stderr.splitlines()[-1]


def test_torch_part_loads_no_hub_and_no_transformers() -> None:
    loaded = _modules_after("import windlass; windlass.load_sharded_checkpoint")
    assert "torch" in loaded
    assert loaded & {"huggingface_hub", "transformers", "safetensors"} == set()


def _imports(node: ast.AST) -> Iterator[str]:
    """Yield the top-level modules that code imports, but for what only a type checker reads."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module.partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


@pytest.mark.parametrize("module", HOMES)
def test_heavy_import_has_one_home(module: str) -> None:
    strangers = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] not in HOMES[module]
        and module in _imports(ast.parse(file.read_text()))
    ]
    assert strangers == []


def _calls(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def test_only_the_command_line_prints() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if "cli" not in file.relative_to(PACKAGE).parts]
    assert [file.name for file in files if "print" in _calls(file)] == []


def test_every_module_opens_with_its_job() -> None:
    files = list(PACKAGE.rglob("*.py"))
    assert [file.name for file in files if not ast.get_docstring(ast.parse(file.read_text()))] == []


def _rust_code(file: Path) -> str:
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', file.read_text())
    return re.sub(r"//[^\n]*", "", text)


def _rust_sources() -> list[Path]:
    crates = [ROOT / "rust" / "core", ROOT / "rust" / "python"]
    return [file for crate in crates for file in crate.rglob("*.rs") if "target" not in file.parts]


def test_rust_sources_are_found() -> None:
    assert any(file.name == "lib.rs" for file in _rust_sources())


def test_unsafe_code_lives_in_its_two_places() -> None:
    outside = [
        file.relative_to(ROOT).as_posix()
        for file in _rust_sources()
        if re.search(r"\bunsafe\b(?!_)", _rust_code(file))
        and not file.relative_to(ROOT).as_posix().startswith(UNSAFE_HOMES)
    ]
    assert outside == []


def test_core_reads_no_environment_and_prints_nothing() -> None:
    words = r"\b(println!|eprintln!|print!|eprint!|dbg!|env::var)"
    sources = (ROOT / "rust" / "core" / "src").rglob("*.rs")
    assert [file.name for file in sources if re.search(words, _rust_code(file))] == []


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
@pytest.mark.timeout(120)
def test_core_knows_nothing_of_python() -> None:
    command = [
        "cargo",
        "tree",
        "--offline",
        "-p",
        "windlass-core",
        "--prefix",
        "none",
        "-e",
        "normal",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    crates = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert "windlass-core" in crates
    assert not [
        crate for crate in crates if "pyo3" in crate or "torch" in crate or "numpy" in crate
    ]
