"""Every node has its words: tooltips, help pages and locales, in English and Chinese, and README."""

from __future__ import annotations

import re

import pytest
from words import LANGUAGES, LOCALES, ROOT, locale_words, schema_words

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")
IDS = sorted(nodes.NODE_CLASS_MAPPINGS)

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
    hint = "`python tests/words.py` writes it anew"
    assert locale_words("en").get(node_id) == schema_words(nodes.NODE_CLASS_MAPPINGS[node_id]), hint


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


@each_language
def test_names_hold_no_sign_that_the_frontend_takes_for_a_placeholder(language):
    texts = [
        (node_id, where, text)
        for node_id, words in locale_words(language).items()
        for where, text in texts_of(words).items()
        if not where.endswith("tooltip")
    ]
    assert [text for text in texts if re.search("[{}@|]", text[2])] == []


@each_language
@each_node
def test_the_help_page_names_every_input_and_output(node_id, language):
    page = (ROOT / "web" / "docs" / node_id / f"{language}.md").read_text(encoding="utf-8")
    schema, words = schema_words(nodes.NODE_CLASS_MAPPINGS[node_id]), locale_words(language)[node_id]
    assert page.startswith(f"# {words['display_name']}\n")
    ids = [*schema["inputs"], *(item["name"] for item in schema["outputs"].values())]
    assert [name for name in ids if f"`{name}`" not in page] == []
    names = [item["name"] for group in ("inputs", "outputs") for item in words[group].values()]
    assert [name for name in names if name not in page] == []


def test_there_are_no_help_pages_of_nodes_that_are_not_there():
    assert sorted(path.name for path in (ROOT / "web" / "docs").iterdir() if path.is_dir()) == IDS
    assert sorted(path.name for path in LOCALES.iterdir()) == sorted(LANGUAGES)


@each_node
def test_pictures_of_the_help_pages_are_there(node_id):
    # The frontend looks for a page's pictures in web/docs, not beside the page.
    for page in (ROOT / "web" / "docs" / node_id).glob("*.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (ROOT / "web" / "docs" / picture).is_file(), f"{page}: {picture}"


@each_node
def test_readme_has_a_section_that_names_every_input_and_output(node_id):
    schema = schema_words(nodes.NODE_CLASS_MAPPINGS[node_id])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = readme.find(f"\n### {schema['display_name']}\n\n`{node_id}`.")
    assert start >= 0
    section = readme[start + 4 :]
    section = section[: re.search(r"\n##+ ", section).start()]
    ids = [*schema["inputs"], *(item["name"] for item in schema["outputs"].values())]
    assert [name for name in ids if f"`{name}`" not in section] == []
