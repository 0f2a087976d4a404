"""The words of the nodes, as ComfyUI's locale files hold them.

`python tests/words.py` writes locales/en/nodeDefs.json anew from the schemas.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locales"
LANGUAGES = ("en", "zh")


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


def write_english(nodes: dict[str, type]) -> Path:
    """locales/en/nodeDefs.json, written from the schemas."""
    path = LOCALES / "en" / "nodeDefs.json"
    words = {name: schema_words(node) for name, node in nodes.items()}
    path.write_text(json.dumps(words, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _words(item) -> dict:
    return {"name": item.display_name or item.id, "tooltip": item.tooltip or ""}


if __name__ == "__main__":
    import conftest  # noqa: F401 - makes the pack importable
    from flexiact_pack.nodes import NODE_CLASS_MAPPINGS, register_folders

    register_folders()
    print(write_english(NODE_CLASS_MAPPINGS))
