"""What a run takes where nobody says otherwise: the base's own size, length, steps and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import FileError, SettingError
from .family import COGVIDEOX_1_0, Family, family_of

# The key of a transformer's config under which a base says some of these values for itself. A base that was trained at
# another size, or without guidance, is told from its family's others by this alone.
KEY = "run"

# What stands for the base's own value where a number is asked for.
AUTO = 0


@dataclass(frozen=True)
class OwnValues:
    """What a run of a base takes, by the names that nodes have for it. Sides are in pixels."""

    width: int
    height: int
    num_frames: int
    steps: int
    cfg: float

    def complete(self, **asked: float) -> dict[str, Any]:
        """What was asked for, with the base's own value in place of every AUTO."""
        own = asdict(self)
        return {name: own[name] if value == AUTO else value for name, value in asked.items()}


def own_values(config: Mapping[str, Any], vae_config: Mapping[str, Any] | None = None) -> OwnValues:
    """The values of the base whose transformer and VAE have these configs.

    What the transformer's config says under KEY goes first; then, for 1.0, the sizes that VAE and transformer were
    trained at; then the family's. Raises FileError if KEY holds anything else than such numbers.
    """
    family = family_of(config)
    found = {name: getattr(family, field) for name, field in _FIELDS.items()}
    if family is COGVIDEOX_1_0:
        # Later families share a VAE that was trained at another size than the transformer.
        found["num_frames"] = config.get("sample_frames") or found["num_frames"]
        for name in ("width", "height"):
            found[name] = (vae_config or {}).get(f"sample_{name}") or found[name]
    return OwnValues(**found | _said(config))


def check_asked(family: Family, asked: Mapping[str, float]) -> None:
    """Passes if these numbers, by the names of OwnValues, may be asked for; AUTO always may.

    Raises SettingError otherwise, with what is nearest.
    """
    named = {name: value for name, value in asked.items() if value != AUTO}
    step = family.size_multiple
    family.check_size(named.get("width", step), named.get("height", step))
    family.check_num_frames(named.get("num_frames", family.num_frames))
    if named.get("cfg", 1) < 1:
        raise SettingError(f"cfg {named['cfg']}: 0 is the base's own guidance, 1 none, and more follows the prompt.")


_FIELDS = {
    "width": "width_px", "height": "height_px", "num_frames": "num_frames", "steps": "steps", "cfg": "cfg",
}  # fmt: skip


def _said(config: Mapping[str, Any]) -> dict[str, float]:
    said = config.get(KEY) or {}
    if not isinstance(said, Mapping) or not set(said) <= set(_FIELDS):
        raise FileError(f"transformer/config.json: '{KEY}' holds {said!r:.80}; it may name {', '.join(_FIELDS)}.")
    for name, value in said.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (name == "cfg" and isinstance(value, float))) or not 1 <= value < 10**6:
            raise FileError(
                f"transformer/config.json: '{KEY}' says {name} {value!r:.80}; a number from 1 on is needed."
            )
    return dict(said)
