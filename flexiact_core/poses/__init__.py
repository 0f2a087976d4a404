"""Poses of people over time: ComfyUI's POSE_KEYPOINT in and out, skeletons, timing, alignment and drawing."""
