"""A prompt as numbers of T5's vocabulary, read from spiece.model as released, or from tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..downloads import existing_file
from ..errors import FileError

SENTENCEPIECE, FAST = "spiece.model", "tokenizer.json"

# T5's own are 0.8 and 2.4 MB.
MAX_VOCABULARY_BYTES = 64_000_000


@dataclass(frozen=True)
class Tokens:
    """The numbers of one prompt."""

    input_ids: list[int]


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary, and how a prompt is cut into its pieces.

    encode gives the numbers of a text, the end's included; size is the number of pieces.
    """

    encode: Callable[[str], list[int]]
    size: int
    pad_token_id: int
    eos_token_id: int

    def __call__(self, prompt: str) -> Tokens:
        """The numbers of a prompt, never cut or padded.

        Half of a character that needs two UTF-16 units, as a text cut in the middle has it, counts as U+FFFD.
        """
        return Tokens(self.encode(prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))

    def __len__(self) -> int:
        return self.size


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that holds spiece.model (T5's release) or tokenizer.json; the first goes first.

    Its other files are not needed: T5 pads with 0 and ends with 1, as the vocabularies themselves say.
    Raises FileError if neither vocabulary is there or can be read, or a package for it is missing.
    """
    folder = Path(folder)
    name = f"{folder.parent.name}/{folder.name}"
    if _lies_in(folder, SENTENCEPIECE):
        return _from_sentencepiece(name, existing_file(folder / SENTENCEPIECE))
    if _lies_in(folder, FAST):
        return _from_json(name, existing_file(folder / FAST))
    raise FileError(
        f"{name}: no vocabulary in it (neither {SENTENCEPIECE} nor {FAST}). Download {SENTENCEPIECE} of the model's "
        "tokenizer folder."
    )


def _lies_in(folder: Path, name: str) -> bool:
    return (folder / name).exists() or (folder / name).is_symlink()


def _from_sentencepiece(name: str, file: Path) -> Tokenizer:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise FileError(_package_missing(name, "sentencepiece")) from error
    try:
        pieces = SentencePieceProcessor(model_proto=_read(name, file))
        end, pad = pieces.eos_id(), pieces.pad_id()
        size = pieces.get_piece_size()
        pieces.encode("a")
    except (RuntimeError, ValueError, TypeError, IndexError, OSError) as error:
        raise FileError(_damaged(name, file.name)) from error
    if end < 0:
        raise FileError(f"{name}/{file.name}: its vocabulary has no end token, so it is not T5's. {_AGAIN}")
    return Tokenizer(lambda text: [*pieces.encode(text), end], size, max(pad, 0), end)


def _from_json(name: str, file: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer as Pieces
    except ImportError as error:
        raise FileError(_package_missing(name, "tokenizers")) from error
    try:
        pieces = Pieces.from_str(_read(name, file).decode("utf-8"))
        pieces.no_truncation()
        pieces.no_padding()
        size, end, pad = pieces.get_vocab_size(), pieces.token_to_id("</s>"), pieces.token_to_id("<pad>")
        ends = pieces.encode("a").ids[-1:] == [end]
    except FileError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise FileError(_damaged(name, file.name)) from error
    if end is None or not ends:
        raise FileError(f"{name}/{file.name}: it does not end a prompt with </s>, as T5's does. {_AGAIN}")
    return Tokenizer(lambda text: pieces.encode(text).ids, size, pad or 0, end)


def _read(name: str, file: Path) -> bytes:
    size = file.stat().st_size
    if size > MAX_VOCABULARY_BYTES:
        raise FileError(f"{name}/{file.name}: {size / 1e6:.0f} MB are too much for a vocabulary. {_AGAIN}")
    return file.read_bytes()


_AGAIN = "Download it again from the model's tokenizer folder."


def _damaged(name: str, file: str) -> str:
    return f"{name}/{file}: damaged, or no vocabulary. {_AGAIN}"


def _package_missing(name: str, package: str) -> str:
    return f"{name}: the Python package {package} is needed to read it. Install it: pip install {package}"
