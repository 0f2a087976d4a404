"""What ComfyUI's registry and Manager, and ComfyUI's checks of packs, hold the repository to."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from host.environment import ROOT

ROOT = Path(ROOT)
# A pack must not bring these: they are ComfyUI's, chosen for the user's machine.
OF_THE_HOST = {"torch", "torchvision", "torchaudio", "transformers", "numpy", "safetensors", "pillow", "av", "einops"}
# Ways around ComfyUI's devices, dtypes and layers, in the words that its checks look for; spelt so that
# this file does not hold them.
AROUND_THE_HOST = [
    "." + "cuda(", '.to("' + "cuda", "torch." + "autocast(", "nn." + "Linear(", "nn." + "Conv1d(", "nn." + "Conv2d(",
    "nn." + "Conv3d(", "Conv" + "Transpose", "nn." + "LayerNorm(", "nn." + "GroupNorm(", "nn." + "Embedding(",
]  # fmt: skip


# What a user's ComfyUI needs: folders and files of the top level, and kinds of files in them.
IN_THE_ARCHIVE = {
    "LICENSE", "README.md", "__init__.py", "docs", "flexiact_core", "locales", "nodes", "pyproject.toml",
    "requirements.txt", "subgraphs", "web", "workflows",
}  # fmt: skip
# What else lies in them and is for developers.
LEFT_OUT = re.compile(r"docs/developing\.md|flexiact_core/\w+/making/.*")
DEVELOPING = "docs/developing.md"
KINDS_IN_THE_ARCHIVE = {
    "", ".glb", ".jpg", ".js", ".json", ".md", ".mp4", ".png", ".webp", ".py", ".safetensors", ".svg", ".toml", ".txt",
}  # fmt: skip


def requirements() -> list[str]:
    return (ROOT / "requirements.txt").read_text().split()


def git_files(*which: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def python_files() -> list[Path]:
    return [ROOT / name for name in git_files("--cached", "--others", "--exclude-standard", "*.py")]


def archive() -> set[str]:
    """The files that `comfy node pack` and `comfy node publish` put into the registry's archive."""
    # .comfyignore is written as .gitignore is, so git tells what it leaves out.
    return git_files("--cached") - git_files("--cached", "--ignored", "--exclude-from=.comfyignore")


def configuration():
    """pyproject.toml as ComfyUI reads it, by the same rules as the registry's own tool."""
    reader = pytest.importorskip("comfy_config.config_parser", reason="There is no ComfyUI to ask: `make setup`.")
    return reader.extract_node_configuration(str(ROOT))


def chapter(title: str, page: str = "README.md") -> str:
    """The text of one chapter of README, or of another page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)


def test_requirements_are_lower_bounds_and_leave_the_host_alone():
    for line in requirements():
        assert re.fullmatch(r"[a-z]+>=[\d.]+", line), line
        assert line.split(">=")[0] not in OF_THE_HOST


def test_pyproject_asks_for_the_same_packages():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1)
    assert re.findall(r'"(.+?)"', listed) == requirements()


def test_the_registry_understands_every_field_of_pyproject():
    project, comfy = configuration().project, configuration().tool_comfy
    assert re.fullmatch(r"[a-z][a-z0-9]{0,98}", project.name) and "comfyui" not in project.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", project.version)
    assert (ROOT / project.license.file).is_file()
    # One classifier that the registry does not know makes it drop all of that kind.
    assert project.supported_os and project.supported_accelerators
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project.supported_comfyui_version)
    assert project.description and comfy.publisher_id and comfy.display_name
    # The folder would be served under the project's name, and the pack's own WEB_DIRECTORY under the folder's: twice.
    assert comfy.web is None


def test_the_archive_holds_what_a_user_needs_and_nothing_else():
    packed = archive()
    assert {name.split("/")[0] for name in packed} == IN_THE_ARCHIVE
    assert sorted(name for name in packed if Path(name).suffix not in KINDS_IN_THE_ARCHIVE) == []
    lost = {name for name in git_files("--cached") if name.split("/")[0] in IN_THE_ARCHIVE} - packed
    assert sorted(name for name in lost if not LEFT_OUT.fullmatch(name)) == []
    assert sorted(name for name in packed if LEFT_OUT.fullmatch(name)) == []
    # `comfy node pack` leaves out names that git shows in quotes.
    assert [name for name in packed if not name.isascii() or set(name) & set('"\\')] == []


def test_the_list_of_nodes_is_found_without_running_the_pack():
    """ComfyUI Manager, which tells users what a missing node is part of, reads this dictionary from the source."""
    nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in.")
    found = [
        ast.literal_eval(key)
        for name in sorted(archive())
        if name.endswith(".py")
        for statement in ast.parse((ROOT / name).read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "NODE_CLASS_MAPPINGS"
        for key in statement.value.keys
    ]
    assert found == list(nodes.NODE_CLASS_MAPPINGS)


def test_the_managers_entry_for_release_says_what_pyproject_says():
    project, comfy = configuration().project, configuration().tool_comfy
    entry = json.loads(re.search(r"```json\n(.*?)```", chapter("To publish", DEVELOPING), re.DOTALL).group(1))
    assert (entry["id"], entry["title"], entry["description"]) == (
        project.name, comfy.display_name, project.description,
    )  # fmt: skip
    assert set(entry) == {"author", "title", "id", "reference", "files", "install_type", "description"}
    assert entry["install_type"] == "git-clone" and entry["files"] == [entry["reference"]]


def test_the_changelog_begins_with_the_version():
    changes = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", changes, re.MULTILINE)[0] == configuration().project.version


# Help pages look for their pictures elsewhere; tests/test_nodes/test_words.py follows them.
PAGES = sorted(name for name in git_files("--cached", "*.md") if not name.startswith("web/docs/"))


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names under which a page's headings can be linked, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        target, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), link


@pytest.mark.parametrize("page", PAGES)
def test_pictures_of_a_page_are_there(page):
    for picture in re.findall(r'<(?:img src|a href)="([^"]+)"', prose(page)):
        assert ((ROOT / page).parent / unquote(picture)).is_file(), picture


def test_readme_shows_every_workflow():
    shown = {Path(unquote(name)).name for name in re.findall(r'src="workflows/([^"]+)\.jpg"', prose("README.md"))}
    assert shown == {path.stem for path in (ROOT / "workflows").glob("*.json")}


def test_every_workflow_and_every_title_of_a_group_is_told_in_chinese():
    told = prose("docs/workflows.zh.md")
    for path in (ROOT / "workflows").glob("*.json"):
        assert f"`{path.stem.partition(' - ')[0]}`" in told
        for group in json.loads(path.read_text(encoding="utf-8"))["groups"]:
            assert group["title"] in told


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_name_what_is_there(page):
    """Targets of make, programs of the pack, and repositories at the hub."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]\w*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z]\w*)", text, re.MULTILINE):
        assert target in targets, target
    # accelerate's launcher takes options of its own before the module.
    started = r"(?:python|accelerate launch[^\n`]*?) -m ((?:flexiact_core|tests|benchmarks)[\w.]*)"
    for module in re.findall(started, text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    known = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for repository in re.findall(r"hf download ([\w-]+/[\w.-]+)", text):
        assert f"/{repository})" in known, repository


def test_the_map_of_the_code_names_what_is_there():
    drawn = re.search(r"```\n(.*?)```", chapter("Map of the code", DEVELOPING), re.DOTALL).group(1)
    folders: list[str] = []
    named = set()
    for line in drawn.splitlines():
        entry = re.match(r"( *)([\w.]+/?(?:[\w.]+/?)*(?:, [\w.]+/)*)(?: |$)", line)
        if not entry or len(entry[1]) > 4:
            continue  # a line that goes on
        depth = len(entry[1]) // 2
        for name in entry[2].split(", "):
            folders[depth:] = [name.rstrip("/")]
            path = "/".join(folders[: depth + 1])
            assert (ROOT / path).is_dir() == name.endswith("/") and (ROOT / path).exists(), path
            named.add(path)
    assert len(named) > 40


def test_make_help_has_a_line_for_every_target():
    if shutil.which("make") is None:
        pytest.skip("There is no make on this machine.")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split()
    assert targets == re.findall(r"^([a-z]\w*):", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\w+) +\S", shown, re.MULTILINE) == targets


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_source_keeps_to_the_hosts_devices_and_layers():
    sources = {file: file.read_text(encoding="utf-8") for file in python_files()}
    assert [(file, words) for file, source in sources.items() for words in AROUND_THE_HOST if words in source] == []


def test_the_core_exists_once_under_both_of_its_names():
    from flexiact_pack.flexiact_core import errors as of_the_pack
    from flexiact_pack.flexiact_core.weight_files import FileError

    import flexiact_core.errors as plain

    assert plain is of_the_pack
    assert FileError is plain.FileError
