"""What a source file says that only the record of a family of bases may say, read off its syntax tree."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The only file that holds what a family of bases knows, and the rooms and nodes that work on no such base.
FAMILY = ROOT / "flexiact_core" / "cogvideox" / "family.py"
OTHER_BASES = ("act_vae", "amg", "avatars", "poses")
# Frames per second, sides in pixels, frames of a video, and heights with their widths.
SPEEDS, STEPS, SIDES, LENGTHS = {8, 16}, {8, 16}, {480, 720, 768, 1360}, {49, 81}
PAIRS = [{30, 45}, {60, 90}, {240, 360}, {480, 720}, {768, 1360}]
# Inputs of nodes whose numbers are the family's.
SIZED = {"width", "height", "num_frames", "fps"}


def works_on_a_family(path: Path) -> bool:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if path == FAMILY or parts[0] not in ("flexiact_core", "nodes"):
        return False
    return not any(parts[1] == base or parts[1].startswith(f"{base}_") for base in OTHER_BASES)


def number_in(node, numbers) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, (bool, str)) and node.value in numbers


def facts_in(node: ast.AST):
    """What a node of a syntax tree says that only a family's record may say."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any("fps" in ast.unparse(target).lower() for target in targets) and number_in(node.value, SPEEDS):
            yield "a speed"
    if isinstance(node, ast.arguments):
        pairs = [*zip(node.args[::-1], node.defaults[::-1]), *zip(node.kwonlyargs, node.kw_defaults)]
        if any("fps" in argument.arg and number_in(value, SPEEDS) for argument, value in pairs):
            yield "a speed"
    if isinstance(node, ast.keyword) and node.arg in ("smallest_px", "size_multiple") and number_in(node.value, STEPS):
        yield "a size"
    if isinstance(node, ast.Assign) and "MULTIPLE" in ast.unparse(node.targets[0]) and number_in(node.value, STEPS):
        yield "a size or a rule of frames"
    if isinstance(node, ast.keyword) and node.arg and "fps" in node.arg and number_in(node.value, SPEEDS):
        yield "a speed"
    if isinstance(node, ast.Tuple) and {getattr(part, "value", None) for part in node.elts} in PAIRS:
        yield "a grid or a size"
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mod, ast.FloorDiv)) and number_in(node.right, {8}):
        if isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.Sub) and number_in(node.left.right, {1}):
            yield "a rule of frames"
    if isinstance(node, ast.Call) and node.args and getattr(node.args[0], "value", None) in SIZED:
        given = [keyword.value for keyword in node.keywords if keyword.arg in ("default", "min", "step")]
        if any(number_in(value, SPEEDS | SIDES | LENGTHS) for value in (*node.args[1:], *given)):
            yield "a widget's number"


def complaints_about_facts(source: str, path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno if hasattr(node, 'lineno') else '?'}: {fact} of a base: "
        f"{ast.unparse(node)[:60]}. Take it from {FAMILY.relative_to(ROOT).as_posix()}."
        for node in ast.walk(ast.parse(source))
        for fact in facts_in(node)
    ]
