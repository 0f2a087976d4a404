"""DynamiCtrl (2025): a picture performs the poses of a video, by a pose norm in every layer of CogVideoX 1.5."""
