"""AMG: a video from renders of 3D avatars and words, on diffusers' video UNet."""
