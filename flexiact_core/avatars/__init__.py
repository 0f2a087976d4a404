"""Avatars: skinned glTF models, their clips, cameras and a rasteriser that needs no display. No model of any system."""
