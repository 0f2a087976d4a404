"""Which part may import which, and what no file of the pack holds: read off the files, nothing is imported."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from facts import FAMILY, complaints_about_facts, works_on_a_family

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server", "execution"}
HEAVY = {"diffusers", "transformers", "peft", "accelerate"}
NOT_OURS = {".git", ".venv", ".cache", ".demo", "node_modules", "__pycache__"}

# Which systems of the core a system may import besides itself; the root files of the core are open to all.
MAY_IMPORT = {
    "": set(),
    "metrics": set(),
    "poses": set(),
    "avatars": {"poses"},
    "cogvideox": set(),
    "flexiact": {"cogvideox"},
    "dynamictrl": {"cogvideox", "poses"},
    "act_vae": {"metrics", "poses"},
    "amg": {"avatars", "poses"},
    "batch": {"metrics", "poses", "cogvideox", "flexiact", "dynamictrl", "act_vae", "world"},
    "world": {"metrics", "poses", "avatars", "cogvideox", "flexiact", "dynamictrl", "act_vae", "amg"},
}

# Layers come from ComfyUI's or diffusers' own classes and devices from the caller; taken apart to keep this file clean.
LITERALS = [".cuda" + "(", '.to("' + "cuda", "torch." + "autocast("] + [
    f"nn.{layer}" + "(" for layer in ("Linear", "Conv2d", "LayerNorm", "GroupNorm", "Embedding")
]


def our_files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        files = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [path for path in ROOT.rglob("*") if not NOT_OURS & set(path.relative_to(ROOT).parts)]
    return [path for path in files if path.is_file()]


FILES = our_files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
CORE = [path for path in PYTHON if path.is_relative_to(ROOT / "flexiact_core")]
PACK = [path for path in PYTHON if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(source: str, path: Path, statements=None):
    """Absolute dotted names of what a file imports, relative imports resolved from the folder it lies in."""
    for node in ast.walk(ast.parse(source)) if statements is None else statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(path.relative_to(ROOT).parts[: -node.level]) if node.level else []
            module = ".".join(package + (node.module.split(".") if node.module else []))
            yield module
            # `from . import x` names a module only in its list of names.
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)


def at_import(tree: ast.Module):
    """Statements that run when the module is imported: not those in functions, nor under TYPE_CHECKING."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        yield node
        pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]


def system_of(parts) -> str | None:
    """The core system that parts of a dotted name lie in; '' for a file of the core's root, None outside the core."""
    if "flexiact_core" not in parts:
        return None
    rest = parts[parts.index("flexiact_core") + 1 :]
    return rest[0] if rest and (ROOT / "flexiact_core" / rest[0]).is_dir() else ""


def complaints_about_core(source: str, path: Path) -> list[str]:
    own = system_of(path.relative_to(ROOT).with_suffix("").parts)
    found = []
    for imported in imports_of(source, path):
        parts = imported.split(".")
        if COMFYUI & {parts[0]}:
            found.append(f"{name_of(path)} imports {imported}: the core never imports ComfyUI")
        other = system_of(parts)
        if other and other != own and other not in MAY_IMPORT[own]:
            found.append(f"{name_of(path)} imports {imported}: {own or 'the root'} may not import {other}")
    return found


def complaints_about_weight(source: str, path: Path) -> list[str]:
    imported = imports_of(source, path, at_import(ast.parse(source)))
    return [f"{name_of(path)} imports {name} when it is imported" for name in imported if name.split(".")[0] in HEAVY]


def check(complaints: list[str]) -> None:
    assert not complaints, "\n".join(complaints)


def test_there_are_files_to_look_at():
    assert len(CORE) > 10 and any(name_of(path).startswith("nodes/") for path in PACK)
    assert {path.name for path in (ROOT / "flexiact_core").iterdir() if (path / "__init__.py").is_file()} <= set(
        MAY_IMPORT
    ), "a new system of the core: say in MAY_IMPORT what it may import"


def test_core_never_imports_comfyui_and_systems_never_import_each_other():
    check([complaint for path in CORE for complaint in complaints_about_core(path.read_text("utf-8"), path)])


@pytest.mark.parametrize(
    ("file", "source", "allowed"),
    [
        ("cogvideox/x.py", "import folder_paths", False),
        ("cogvideox/x.py", "def f():\n    from comfy.utils import ProgressBar", False),
        ("cogvideox/x.py", "from ..flexiact.fae import FAE", False),
        ("cogvideox/x.py", "from .. import flexiact", False),
        ("cogvideox/x.py", "import flexiact_core.world.making.build", False),
        ("x.py", "from .cogvideox.model import Posterior", False),
        ("flexiact/x.py", "from ..world import render", False),
        ("flexiact/x.py", "from ..cogvideox.model import Posterior\nfrom ..errors import ShapeError", True),
        ("world/x.py", "from ..flexiact.fae import FAE\nfrom . import render", True),
    ],
)
def test_the_import_rules_notice_what_they_forbid(file, source, allowed):
    assert (complaints_about_core(source, ROOT / "flexiact_core" / file) == []) == allowed


def test_what_a_base_knows_stands_in_its_familys_record_alone():
    check(
        [
            complaint
            for path in PACK
            if works_on_a_family(path)
            for complaint in complaints_about_facts(path.read_text("utf-8"), path)
        ]
    )
    assert complaints_about_facts(FAMILY.read_text("utf-8"), FAMILY), "the record holds no fact that the rule knows"


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("FPS = 8", False),
        ("def f(frames, fps=16): ...", False),
        ("def f(*, target_fps: float = 8.0): ...", False),
        ("read_video(path, fps=8)", False),
        ("GRID = (30, 45)", False),
        ("positions(480, 720)", True),  # two numbers of a call are no pair yet
        ("TILE_PX = (240, 360)", False),
        ("assert (num_frames - 1) % 8 == 0", False),
        ("k = (num_frames - 1) // 8", False),
        ('io.Int.Input("num_frames", default=49, min=1, max=1025)', False),
        ('io.Int.Input("width", default=720, step=16)', False),
        ('inputs.side("height", 480)', False),
        ('io.Int.Input("steps", default=16)', True),
        ("SIZE_MULTIPLE = 16", False),
        ('check_single_image(image, "image", smallest_px=16)', False),
        ("FPS = COGVIDEOX_1_0.fps", True),
        ("width = head_dim // 8", True),
        ("batch_size = 16", True),
    ],
)
def test_the_rule_of_facts_notices_what_it_forbids(source, allowed):
    assert (complaints_about_facts(source, ROOT / "flexiact_core" / "x.py") == []) == allowed


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """The files of a circle of imports, in its order; empty if there is none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if circle := follow(other, [*way, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(arrows) if (circle := follow(name, []))), [])


def test_no_files_import_each_other_in_a_circle():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PYTHON if path.name != "__init__.py"}
    arrows = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): names & set(imports_of(path.read_text("utf-8"), path))
        for path in PYTHON
        if path.name != "__init__.py" and path.relative_to(ROOT).parts[0] != "tests"
    }
    circle = circle_in(arrows)
    assert not circle, " -> ".join(circle)
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]


# What only a command-line program does: prints, chooses a device, reads the environment, sets up logs and threads.
LOUD = re.compile(
    r"\bprint\(|os\.environ|getenv|cuda\.is_available|basicConfig|set_num_threads|hf_hub_download|snapshot_download|urlopen"
)


def test_the_core_prints_nothing_chooses_no_device_and_reads_no_environment():
    check(
        [
            f"{name_of(path)}:{number}: {found[0]}"
            for path in CORE
            if "making" not in path.parts and path.name != "command_line.py"
            if '__name__ == "__main__"' not in path.read_text("utf-8")
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
            if (found := LOUD.search(line))
        ]
    )


def test_nothing_that_is_run_needs_how_weights_were_made():
    check(
        [
            f"{name_of(path)} imports {imported}"
            for path in PACK
            if "making" not in path.parts
            for imported in imports_of(path.read_text("utf-8"), path)
            if "making" in imported.split(".")
        ]
    )


def test_only_nodes_and_tests_import_comfyui():
    check(
        [
            f"{name_of(path)} imports {imported}"
            for path in PACK
            if not path.is_relative_to(ROOT / "nodes") and path != ROOT / "__init__.py"
            for imported in imports_of(path.read_text("utf-8"), path)
            if imported.split(".")[0] in COMFYUI - {"nodes"}
        ]
    )


def test_nothing_heavy_is_imported_when_a_module_is():
    check([complaint for path in PACK for complaint in complaints_about_weight(path.read_text("utf-8"), path)])


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("from diffusers import X", False),
        ("try:\n    import peft\nexcept ImportError:\n    pass", False),
        ("class A:\n    import transformers", False),
        ("def f():\n    import diffusers", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from diffusers import X", True),
        ("import torch", True),
    ],
)
def test_the_weight_rule_notices_what_it_forbids(source, allowed):
    assert (complaints_about_weight(source, ROOT / "flexiact_core" / "x.py") == []) == allowed


def test_python_files_are_ascii():
    check(
        [
            f"{name_of(path)}:{number}: {line.strip()}"
            for path in PYTHON
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
            if not line.isascii()
        ]
    )


def test_no_python_file_chooses_a_device_or_makes_layers_of_its_own():
    check(
        [
            f"{name_of(path)}:{number}: {literal}"
            for path in PYTHON
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
            for literal in LITERALS
            if literal in line
        ]
    )


# Programs that are still in one piece.
IN_ONE_PIECE = {"train_amg.train"}


def code_lines(function, lines: list[str]) -> int:
    """Lines of a function's body, without its docstring, comments and blank lines."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    code = lines[body[0].lineno - 1 : function.end_lineno] if body else []
    return sum(1 for line in code if line.strip() and not line.strip().startswith("#"))


def complaints_about_size(source: str, path: Path) -> list[str]:
    lines = source.splitlines()
    found = [f"{name_of(path)}: {len(lines)} lines; 350 are allowed"] if len(lines) > 350 else []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name == "define_schema":
            continue  # a schema is a list, whatever its length
        allowed = 15 if node.name == "execute" and name_of(path).startswith("nodes/") else 40
        if f"{path.stem}.{node.name}" not in IN_ONE_PIECE and (found_lines := code_lines(node, lines)) > allowed:
            found.append(f"{name_of(path)}: {node.name} has {found_lines} lines of code; {allowed} are allowed")
    return found


def test_a_node_is_a_door_and_functions_and_files_are_short():
    check([complaint for path in PACK for complaint in complaints_about_size(path.read_text("utf-8"), path)])


def test_the_rule_of_sizes_notices_what_it_forbids():
    def function(name: str, count: int) -> str:
        return f'def {name}():\n    """Says."""\n    # Why.\n\n' + "    x = 1\n" * count

    node, core = ROOT / "nodes" / "x.py", ROOT / "flexiact_core" / "x.py"
    assert complaints_about_size(function("execute", 15), node) == []
    assert len(complaints_about_size(function("execute", 16), node)) == 1
    assert complaints_about_size(function("work", 40), core) == []
    assert len(complaints_about_size(function("work", 41), core)) == 1
    assert complaints_about_size("x = 1\n" * 350, core) == []
    assert len(complaints_about_size("x = 1\n" * 351, core)) == 1


def test_no_file_names_a_machines_folders_or_a_package_registry():
    # Taken apart, so that this file does not match itself.
    folders = "|".join(f"/{name}/" for name in ("home", "root", "work", "Users", "mnt", "opt", "scratch", "workspace"))
    machine = re.compile(rf"(?<![\w.$)}}~-])({folders})\w|\b[A-Z]:\\+Users")
    registry = re.compile(
        "--(extra-)?index-" + r"url|https?://[^\s/]*(pypi|python" + r"hosted|artifactory|nexus|npmjs)"
    )
    found = []
    for path in FILES:
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if match := machine.search(line) or registry.search(line):
                found.append(f"{name_of(path)}:{number}: {match[0]}")
    check(found)
