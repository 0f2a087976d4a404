"""The nodes' words, said once: the schema says them in English, locales/<language>/nodeDefs.json in another language.

`.venv/bin/python tests/words.py` writes from them what repeats them: locales/en/nodeDefs.json, title and inputs and
outputs of the help pages web/docs/<node id>/<language>.md, and the table of nodes in README. What else a page says is
its own and stays. words.json beside this file holds the few words that pages need in each language.
"""

from __future__ import annotations

import json
import re
import textwrap
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locales"
DOCS = ROOT / "web" / "docs"
README = ROOT / "README.md"
PAGE_WORDS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
LANGUAGES = tuple(PAGE_WORDS)
LINE_WIDTH = 120
TABLE_HEAD = "| node | what it does |\n|---|---|\n"
# A number input that goes further is any whole number: a seed.
ANY_NUMBER = 2**53


def schema_words(node: type) -> dict:
    """A node's entry in nodeDefs.json, in the words of its own schema. The model folders must be registered."""
    schema = node.define_schema()
    return {
        "display_name": schema.display_name or schema.node_id,
        "description": schema.description,
        "inputs": {item.id: _words(item) for item in schema.inputs},
        "outputs": {str(index): _words(item) for index, item in enumerate(schema.outputs)},
    }


def locale_words(language: str) -> dict:
    """The content of a language's nodeDefs.json."""
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def english(nodes: dict[str, type]) -> str:
    """locales/en/nodeDefs.json."""
    words = {name: schema_words(node) for name, node in nodes.items()}
    return json.dumps(words, indent=2, ensure_ascii=False) + "\n"


def page_path(node_id: str, language: str) -> Path:
    """Where the help page of a node lies."""
    return DOCS / node_id / f"{language}.md"


def help_page(node: type, words: dict, language: str, page: str) -> str:
    """A help page, with title, inputs and outputs written anew; a page that is empty begins with the description.

    words is the node's entry in nodeDefs.json.
    """
    of_page = PAGE_WORDS[language]
    schema = node.define_schema()
    before, after = _own_parts(page, {f"## {of_page['inputs']}", f"## {of_page['outputs']}"})
    before = before or words["description"]
    inputs = [_line(of_page, item, words["inputs"][item.id], item.id) for item in schema.inputs]
    outputs = [
        _line(of_page, item, words["outputs"][str(index)], item.display_name or item.id)
        for index, item in enumerate(schema.outputs)
    ]
    sections = [f"# {words['display_name']}", before]
    for title, lines in (("inputs", inputs), ("outputs", outputs)):
        if lines:
            sections += [f"## {of_page[title]}", "\n".join(lines)]
    return "\n\n".join([*sections, after]).strip() + "\n"


def readme(nodes: dict[str, type], text: str) -> str:
    """README, with a line for each node that links its help page."""
    rows = ""
    for node_id, node in nodes.items():
        words = schema_words(node)
        about = re.match(r".+?[.](?=\s|$)|.+", words["description"])[0]
        rows += f"| [{words['display_name']}](web/docs/{node_id}/en.md) | {about} |\n"
    return re.sub(re.escape(TABLE_HEAD) + r"(\|.*\n)*", lambda _: TABLE_HEAD + rows, text)


def written(nodes: dict[str, type]) -> dict[Path, str]:
    """Every file that this command writes, and what is to stand in it."""
    files = {
        LOCALES / "en" / "nodeDefs.json": english(nodes),
        README: readme(nodes, README.read_text(encoding="utf-8")),
    }
    for language in LANGUAGES:
        words = json.loads(english(nodes)) if language == "en" else locale_words(language)
        for node_id, node in nodes.items():
            # A node without words in a language has no page in it either; the tests say so.
            if words.get(node_id, {}).keys() >= {"display_name", "description", "inputs", "outputs"}:
                path = page_path(node_id, language)
                page = path.read_text(encoding="utf-8") if path.exists() else ""
                files[path] = help_page(node, words[node_id], language, page)
    return files


def _own_parts(page: str, written: set[str]) -> tuple[str, str]:
    """What a page says of its own before and after the chapters that are written; its title is neither."""
    chapters = re.split(r"^(?=## )", re.sub(r"\A# .*", "", page), flags=re.MULTILINE)
    places = [place for place, text in enumerate(chapters) if text.split("\n", 1)[0] in written]
    first = places[0] if places else len(chapters)
    after = [text for place, text in enumerate(chapters) if place > first and place not in places]
    return "".join(chapters[:first]).strip(), "".join(after).strip()


def _words(item) -> dict:
    return {"name": item.display_name or item.id, "tooltip": item.tooltip or ""}


def _line(of_page: dict, item, words: dict, name: str) -> str:
    bold = f"**`{name}`**" if words["name"] == name else f"**{words['name']} `{name}`**"
    kinds = of_page["and"].join(_kinds(of_page, item))
    if getattr(item, "optional", False):
        kinds += of_page["besides"] + of_page["optional"]
    if getattr(item, "is_output_list", False):
        kinds += of_page["besides"] + of_page["list"]
    text = re.sub(r"[<*]", r"\\\g<0>", words["tooltip"])
    line = "- " + of_page["kind"].format(name=bold, kind=kinds, text=text)
    if not of_page["wrap"]:
        return line
    return textwrap.fill(line, LINE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _kinds(of_page: dict, item):
    template = getattr(item, "template", None)
    kind = item.get_io_type() if template is None else "/".join(own.io_type for own in template.allowed_types)
    if hasattr(item, "is_output_list"):
        yield kind
    elif kind == "STRING":
        yield of_page["text"]
    elif kind == "BOOLEAN":
        yield of_page["on or off"]
    elif kind in ("INT", "FLOAT"):
        if item.max is None or item.max > ANY_NUMBER:
            yield of_page["whole number"] if kind == "INT" else kind
            return
        yield of_page["range"].format(least=_plain(item.min), most=_plain(item.max))
        if kind == "INT" and (item.step or 1) > 1:
            yield of_page["steps"].format(step=item.step)
    elif kind == "COMBO":
        options = [str(option) for option in item.options or []]
        # One that is always there may stand before files; a fixed choice may be called as some file is.
        yield from [of_page["list"]] if all(_names_a_file(o) for o in options if o != item.default) else options
    else:
        yield from kind.split(",")


def _names_a_file(option: str) -> bool:
    from flexiact_pack.nodes import MODEL_FOLDERS
    from flexiact_pack.nodes.host.folders import NONE_FOUND

    return option == NONE_FOUND or any((root / option).exists() for kind in MODEL_FOLDERS for root in kind.roots())


def _plain(number: float) -> str:
    return f"{Decimal(repr(number)):f}".removesuffix(".0")


if __name__ == "__main__":
    import conftest  # noqa: F401 - makes the pack importable
    from flexiact_pack.nodes import NODE_CLASS_MAPPINGS, register_folders

    register_folders()
    for path, text in written(NODE_CLASS_MAPPINGS).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
