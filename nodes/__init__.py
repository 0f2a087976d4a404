"""The pack's nodes. Their ids are saved in workflows and never change."""

from pathlib import Path

from . import act_vae, amg, cogvideox, flexiact, metrics, native
from .acceleration import FlexiActAcceleration
from .act_vae import LoadACTVAE, MeasurePoses, PredictActionPoses
from .act_vae_images import CompareACTVAERow, PoseToImage
from .act_vae_training import TrainACTVAE
from .amg import AMGSampler, LoadAMG, LoadAMGDemoFolder
from .amg_training import SaveAMGAdapter, TrainAMG
from .avatars import PlaceAvatar, RenderAvatars
from .checks import check_inputs
from .cogvideox import LoadCogVideoXI2V
from .dynamictrl import DynamiCtrlSampler
from .flexiact import ApplyRefAdapter, FlexiActSampler, LoadFAEEmbedding
from .flexiact_clips import LoadReleasedAction, PrepareActionClips, SaveActionClips
from .flexiact_training import TrainFAE, TrainRefAdapter
from .host import folders
from .metrics import EvaluateVideo
from .native import (
    ApplyFlexiAct,
    CogVideoXFixes,
    CogVideoXImageToVideo,
    LoadCogVideoXLora,
    LoadCogVideoXNative,
)
from .native_samplers import CogVideoXNoise, CogVideoXSampler, CogVideoXSchedule
from .poses import AlignPose, DrawPose
from .released import GetReleasedModels
from .world import (
    LoadExampleAction,
    LoadExampleAvatar,
    LoadExamplePerson,
    MeasureAction,
    MeasureAvatar,
    MeasurePerson,
)

NODE_CLASS_MAPPINGS = {
    "LoadCogVideoXI2V": LoadCogVideoXI2V,
    "ApplyRefAdapter": ApplyRefAdapter,
    "LoadFAEEmbedding": LoadFAEEmbedding,
    "FlexiActSampler": FlexiActSampler,
    "FlexiActAcceleration": FlexiActAcceleration,
    "PrepareActionClips": PrepareActionClips,
    "LoadReleasedAction": LoadReleasedAction,
    "SaveActionClips": SaveActionClips,
    "TrainFAE": TrainFAE,
    "TrainRefAdapter": TrainRefAdapter,
    "LoadExampleAction": LoadExampleAction,
    "MeasureAction": MeasureAction,
    "LoadExamplePerson": LoadExamplePerson,
    "MeasurePerson": MeasurePerson,
    "LoadExampleAvatar": LoadExampleAvatar,
    "MeasureAvatar": MeasureAvatar,
    "EvaluateVideo": EvaluateVideo,
    "PlaceAvatar": PlaceAvatar,
    "RenderAvatars": RenderAvatars,
    "LoadAMG": LoadAMG,
    "AMGSampler": AMGSampler,
    "LoadAMGDemoFolder": LoadAMGDemoFolder,
    "TrainAMG": TrainAMG,
    "SaveAMGAdapter": SaveAMGAdapter,
    "LoadACTVAE": LoadACTVAE,
    "PredictActionPoses": PredictActionPoses,
    "PoseToImage": PoseToImage,
    "CompareACTVAERow": CompareACTVAERow,
    "TrainACTVAE": TrainACTVAE,
    "MeasurePoses": MeasurePoses,
    "AlignPose": AlignPose,
    "DrawPose": DrawPose,
    "DynamiCtrlSampler": DynamiCtrlSampler,
    "LoadCogVideoXNative": LoadCogVideoXNative,
    "CogVideoXFixes": CogVideoXFixes,
    "CogVideoXImageToVideo": CogVideoXImageToVideo,
    "ApplyFlexiAct": ApplyFlexiAct,
    "CogVideoXNoise": CogVideoXNoise,
    "CogVideoXSampler": CogVideoXSampler,
    "CogVideoXSchedule": CogVideoXSchedule,
    "LoadCogVideoXLora": LoadCogVideoXLora,
    "GetReleasedModels": GetReleasedModels,
}

check_inputs(NODE_CLASS_MAPPINGS.values())

# Folders under models/ that the pack reads; a new one is a row here. The small world's files come with the pack.
MODEL_FOLDERS = (
    cogvideox.BASES, cogvideox.TEXT_ENCODERS, cogvideox.VAES, native.LORAS, flexiact.FILES, amg.FILES, act_vae.MODELS,
    metrics.CLIPS,
)  # fmt: skip
SHIPPED = Path(__file__).parent.parent / "flexiact_core" / "world" / "weights"
INPUTS = Path(__file__).parent.parent / "workflows" / "inputs"


def register_folders() -> None:
    """Makes MODEL_FOLDERS known to ComfyUI. Lists of files are read after it."""
    folders.register_folders(MODEL_FOLDERS, SHIPPED)


def put_inputs() -> None:
    """Puts the pictures that the pack's workflows begin with into ComfyUI's input folder."""
    folders.put_inputs(INPUTS)
