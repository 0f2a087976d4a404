"""Files damaged as transfers and disks damage them, and what reading them may end in."""

from __future__ import annotations

import random

from flexiact_core.errors import FlexiActError

MUTATIONS = 300


def mutate(content, dice):
    """The bytes, damaged as transfers and disks damage them; the first part more often, where the structure lies."""
    data = bytearray(content)
    size = len(data) if dice.random() < 0.5 else min(len(data), 600)
    kind = dice.choice(["byte", "bytes", "cut", "zeros", "more", "reversed", "swapped"])
    at, other = sorted((dice.randrange(size), dice.randrange(size)))
    if kind == "byte":
        data[at] = dice.randrange(256)
    elif kind == "bytes":
        for _ in range(dice.randrange(1, 20)):
            data[dice.randrange(size)] = dice.randrange(256)
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        data[at : at + 40] = bytes(len(data[at : at + 40]))
    elif kind == "more":
        data[at:at] = dice.randbytes(dice.randrange(1, 9))
    elif kind == "reversed":
        data[at:other] = data[at:other][::-1]
    else:
        data[at], data[other] = data[other], data[at]
    return bytes(data)


def ends_in_sentences(read, file, good, seed, count=MUTATIONS):
    """How many of so many damaged versions were refused. Fails on any exception that is no sentence."""
    dice, refused = random.Random(seed), 0
    for number in range(count):
        file.write_bytes(mutate(good, dice))
        try:
            read(file)
        except FlexiActError as error:
            refused += 1
            assert str(error).rstrip().endswith((".", "FlexiAct", "stopped", "file")) and len(str(error)) < 2000
            assert str(file.parent) not in str(error)
        except Exception as error:
            raise AssertionError(f"damaged version {number} of {file.name}: {error!r}") from error
    return refused
