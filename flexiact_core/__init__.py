"""FlexiAct's computation, free of ComfyUI: tensors, paths and callbacks in, tensors and files out."""
