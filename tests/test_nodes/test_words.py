"""Every node has its words, in English and Chinese, and each is said in one place: what repeats them is written."""

from __future__ import annotations

import json
import re

import pytest
from words import LANGUAGES, LOCALES, README, ROOT, help_page, locale_words, page_path, readme, schema_words, written

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")
IDS = sorted(nodes.NODE_CLASS_MAPPINGS)
HINT = "`.venv/bin/python tests/words.py` writes it anew"

each_node = pytest.mark.parametrize("node_id", IDS)
each_language = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture(scope="module", autouse=True)
def model_folders():
    nodes.register_folders()


def shape_of(words: dict) -> dict:
    """The words of a node, without what they say."""
    return {key: {name: sorted(item) for name, item in words[key].items()} for key in ("inputs", "outputs")}


def texts_of(words: dict) -> dict[str, str]:
    """Every text of a node by where it stands."""
    texts = {key: words[key] for key in ("display_name", "description")}
    for group in ("inputs", "outputs"):
        for name, item in words[group].items():
            texts |= {f"{group}.{name}.{key}": value for key, value in item.items()}
    return texts


@each_node
def test_the_schema_says_what_every_input_and_output_does(node_id):
    texts = texts_of(schema_words(nodes.NODE_CLASS_MAPPINGS[node_id]))
    assert [where for where, text in texts.items() if not text] == []


@each_node
def test_the_english_locale_is_the_schema_word_for_word(node_id):
    assert locale_words("en").get(node_id) == schema_words(nodes.NODE_CLASS_MAPPINGS[node_id]), HINT


@each_language
def test_a_locale_has_the_nodes_and_no_other(language):
    assert sorted(locale_words(language)) == IDS


@each_language
@each_node
def test_a_locale_has_every_input_and_output_with_a_tooltip_and_no_other(node_id, language):
    words = locale_words(language)[node_id]
    assert shape_of(words) == shape_of(schema_words(nodes.NODE_CLASS_MAPPINGS[node_id]))
    assert sorted(words) == ["description", "display_name", "inputs", "outputs"]
    assert [where for where, text in texts_of(words).items() if not text.strip()] == []


@each_node
def test_the_chinese_locale_is_chinese(node_id):
    words = texts_of(locale_words("zh")[node_id])
    sentences = {where: text for where, text in words.items() if where.endswith(("tooltip", "description"))}
    assert [where for where, text in sentences.items() if text.isascii()] == []


def test_every_menu_has_a_chinese_name():
    menus = {
        menu for node in nodes.NODE_CLASS_MAPPINGS.values() for menu in node.define_schema().category.split("/")[1:]
    }
    named = json.loads((LOCALES / "zh" / "main.json").read_text(encoding="utf-8"))["nodeCategories"]
    assert menus - named.keys() == set()


@each_language
def test_names_hold_no_sign_that_the_frontend_takes_for_a_placeholder(language):
    texts = [
        (node_id, where, text)
        for node_id, words in locale_words(language).items()
        for where, text in texts_of(words).items()
        if not where.endswith("tooltip")
    ]
    assert [text for text in texts if re.search("[{}@|]", text[2])] == []


@pytest.fixture(scope="module")
def files():
    return written(nodes.NODE_CLASS_MAPPINGS)


@each_language
@each_node
def test_a_help_page_says_what_the_schema_or_the_locale_says_of_every_input_and_output(node_id, language, files):
    path = page_path(node_id, language)
    assert path.exists(), f"{HINT}; what else the page is to say is for you to write"
    assert path.read_text(encoding="utf-8") == files[path], HINT


def test_readme_has_a_line_for_every_node_and_it_links_the_help_page(files):
    text = README.read_text(encoding="utf-8")
    assert text == files[README], HINT
    assert re.findall(r"\(web/docs/(\w+)/en\.md\)", text) == list(nodes.NODE_CLASS_MAPPINGS)


def test_what_a_page_says_of_its_own_stays_and_the_rest_is_written():
    node = nodes.NODE_CLASS_MAPPINGS["LoadFAEEmbedding"]
    words = schema_words(node)
    new = help_page(node, words, "en", "")
    assert new.startswith(
        f"# {words['display_name']}\n\n{words['description']}\n\n## Inputs\n\n- **`fae_file`** (list): An"
    )
    assert "- **`strength`** (0 to 4): Weight" in new and "- **`fae`** (FLEXIACT_FAE; optional): " in new
    own = "# Old name\n\nMine.\n\n## First\n\nA.\n\n## Inputs\n\n- old\n\n## Outputs\n\nold\n\n## Last\n\nB.\n"
    page = help_page(node, words, "en", own)
    assert "old" not in page.lower()
    assert page == help_page(node, words, "en", page)
    assert re.findall("Mine|^#+ .*|A\\.$|B\\.$", page, re.MULTILINE) == [
        "# Load Action (FAE)", "Mine", "## First", "A.", "## Inputs", "## Outputs", "## Last", "B.",
    ]  # fmt: skip


def test_readmes_table_is_written_and_the_rest_stays():
    node = nodes.NODE_CLASS_MAPPINGS["LoadFAEEmbedding"]
    text = "before\n\n| node | what it does |\n|---|---|\n| gone | x |\n\nafter | \n"
    row = "| [Load Action (FAE)](web/docs/LoadFAEEmbedding/en.md) | Loads one learned action (FAE). |"
    assert readme({"LoadFAEEmbedding": node}, text) == text.replace("| gone | x |", row)


def test_there_are_no_help_pages_of_nodes_that_are_not_there():
    assert sorted(path.name for path in (ROOT / "web" / "docs").iterdir() if path.is_dir()) == IDS
    assert sorted(path.name for path in LOCALES.iterdir()) == sorted(LANGUAGES)


@each_node
def test_pictures_of_the_help_pages_are_there(node_id):
    # The frontend looks for a page's pictures in web/docs, not beside the page.
    for page in (ROOT / "web" / "docs" / node_id).glob("*.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (ROOT / "web" / "docs" / picture).is_file(), f"{page}: {picture}"
