"""The CogVideoX image-to-video base: its parts, how they are loaded, and the denoising loop."""
