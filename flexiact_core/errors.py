"""Errors a user can act on: each message says what was found, where, and the way out."""


class FlexiActError(Exception):
    """Base of all errors raised on purpose by this package."""

    def __init_subclass__(cls):
        # Shown to users before the message; as ComfyUI imports a pack, its modules are named by their path on disk.
        cls.__module__ = "flexiact"


class FileError(FlexiActError):
    """A file is missing, damaged, unsafe, or belongs to another model."""


class ShapeError(FlexiActError):
    """A tensor, image or video has a size or layout that cannot be used."""


class SettingError(FlexiActError):
    """A number or choice set by the user cannot be used."""


def why(error: Exception) -> str:
    """A few words on why a library failed, for the brackets of a sentence.

    Never what stands in a file, nor where it lies: a message may be shown to somebody who may see neither.
    """
    if isinstance(error, FlexiActError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or "it is damaged, or of another kind"
    if isinstance(error, UnicodeError):
        return "no text in UTF-8"
    if isinstance(line := getattr(error, "lineno", None), int):
        return f"line {line}"
    if isinstance(error, (ValueError, TypeError, LookupError)):
        return "its content is not as expected"
    return type(error).__name__
