"""Errors a user can act on: each message says what was found, where, and the way out."""


class FlexiActError(Exception):
    """Base of all errors raised on purpose by this package."""


class CheckpointError(FlexiActError):
    """A file is missing, damaged, unsafe, or belongs to another model."""


class ShapeError(FlexiActError):
    """A tensor, image or video has a size or layout that cannot be used."""


class SettingError(FlexiActError):
    """A number or choice set by the user cannot be used."""
