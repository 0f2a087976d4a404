"""The small world: sprites that act, and a CogVideoX small enough to act them on two CPU cores."""
