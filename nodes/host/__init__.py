"""The door to ComfyUI, one theme a room: model folders, memory, kept encodings, progress, and its IMAGE and VIDEO."""
