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
