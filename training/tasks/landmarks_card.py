"""What a landmark run's model card says: from the configuration and the dataset's facts, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training.tasks.card import Card, Reference
from training.tasks.convlstm_card import GROUP_NORM

if TYPE_CHECKING:
    from training.schemas.landmarks import (
        AugmentationSection,
        LandmarkConfig,
        LandmarkDataSection,
        LandmarkEvaluationSection,
        LandmarkLossSection,
        LandmarkModelSection,
    )

RESNET = Reference(
    "he2016resnet",
    "He et al. 2016",
    "inproceedings",
    "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    "Deep Residual Learning for Image Recognition",
    2016,
    {"booktitle": "IEEE Conference on Computer Vision and Pattern Recognition (CVPR)", "eprint": "1512.03385"},
)
HE_INIT = Reference(
    "he2015rectifiers",
    "He et al. 2015",
    "inproceedings",
    "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
    2015,
    {"booktitle": "IEEE International Conference on Computer Vision (ICCV)", "eprint": "1502.01852"},
)
IMAGENET = Reference(
    "deng2009imagenet",
    "Deng et al. 2009",
    "inproceedings",
    "Deng, Jia and Dong, Wei and Socher, Richard and Li, Li-Jia and Li, Kai and Fei-Fei, Li",
    "ImageNet: A Large-Scale Hierarchical Image Database",
    2009,
    {
        "booktitle": "IEEE Conference on Computer Vision and Pattern Recognition (CVPR)",
        "doi": "10.1109/CVPR.2009.5206848",
    },
)
COORDINATE_ATTENTION = Reference(
    "hou2021coordinate",
    "Hou et al. 2021",
    "inproceedings",
    "Hou, Qibin and Zhou, Daquan and Feng, Jiashi",
    "Coordinate Attention for Efficient Mobile Network Design",
    2021,
    {
        "booktitle": "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        "eprint": "2103.02907",
    },
)
WING = Reference(
    "feng2018wing",
    "Feng et al. 2018",
    "inproceedings",
    "Feng, Zhen-Hua and Kittler, Josef and Awais, Muhammad and Huber, Patrik and Wu, Xiao-Jun",
    "Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks",
    2018,
    {
        "booktitle": "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        "eprint": "1711.06753",
    },
)
ADAPTIVE_WING = Reference(
    "wang2019awing",
    "Wang et al. 2019",
    "inproceedings",
    "Wang, Xinyao and Bo, Liefeng and Fuxin, Li",
    "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression",
    2019,
    {"booktitle": "IEEE/CVF International Conference on Computer Vision (ICCV)", "eprint": "1904.07399"},
)
SOFT_WING = Reference(
    "lin2021structure",
    "Lin et al. 2021",
    "article",
    "Lin, Chunze and Zhu, Beier and Wang, Quan and Liao, Renjie and Qian, Chen and Lu, Jiwen and Zhou, Jie",
    "Structure-Coherent Deep Feature Learning for Robust Face Alignment",
    2021,
    {"journal": "IEEE Transactions on Image Processing", "volume": "30", "pages": "5313--5326"},
)
CLAHE = Reference(
    "zuiderveld1994clahe",
    "Zuiderveld 1994",
    "incollection",
    "Zuiderveld, Karel",
    "Contrast Limited Adaptive Histogram Equalization",
    1994,
    {"booktitle": "Graphics Gems IV", "publisher": "Academic Press", "pages": "474--485"},
)
BOOTSTRAP = Reference(
    "efron1993bootstrap",
    "Efron and Tibshirani 1993",
    "book",
    "Efron, Bradley and Tibshirani, Robert J.",
    "An Introduction to the Bootstrap",
    1993,
    {"publisher": "Chapman and Hall"},
)

_LIMITS = (
    "It gives every point in every image, also where the image does not show it: it has no notion of being unsure.",
    "It holds for images like those it was trained on: device, view, patients and preparation.",
    "It cannot be more exact than its labels: errors below their rounding say nothing.",
    "It is no medical device: nothing here measures what a wrong point costs.",
)


def landmark_card(config: LandmarkConfig, facts: Mapping[str, Any]) -> Card:
    """The card of a model that was trained with ``config`` on data with these ``facts``."""
    names = facts["landmark_set"]["names"]
    parts = [
        _data(config.data),
        _augmentation(config.augmentation),
        _model(config.model),
        _frozen(config),
        _loss(config.loss),
        _scores(config.evaluation),
    ]
    return Card(
        what=f"It finds {len(names)} points in an image: {_listed(names)}.",
        uses=[
            "Measuring and aligning images by their points, where the errors below are small enough for it.",
            "Research on landmark localisation, as one model or as a member of an ensemble.",
        ],
        limits=_LIMITS,
        method=[sentence for sentence, _ in parts if sentence],
        references=[paper for _, papers in parts for paper in papers],
    )


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names) if len(names) <= most else f"{names[0]} to {names[-1]}"


def _data(data: LandmarkDataSection) -> tuple[str, list[Reference]]:
    text = f"Images were brought to {data.image_size} x {data.image_size} pixels"
    if not data.clahe:
        return f"{text}.", []
    equalised = f"contrast-limited adaptive histogram equalisation ({CLAHE.short}) of their lightness"
    how = f"clip limit {data.clahe_clip:g}, {data.clahe_tile} x {data.clahe_tile} tiles"
    return f"{text}, after {equalised} ({how}).", [CLAHE]


def _augmentation(changes: AugmentationSection) -> tuple[str, list[Reference]]:
    parts = {
        f"mirrored with probability {changes.flip:g}": changes.flip,
        f"rotated by up to {changes.rotation:g} degrees": changes.rotation,
        f"changed in brightness by up to {changes.brightness:.0%}": changes.brightness,
        f"changed in contrast by up to {changes.contrast:.0%}": changes.contrast,
    }
    told = [text for text, strength in parts.items() if strength > 0]
    return f"Training images were {', '.join(told)}." if told else "Training images were used as they are.", []


def _model(model: LandmarkModelSection) -> tuple[str, list[Reference]]:
    papers = [RESNET]
    text = f"The model was a ResNet-18 ({RESNET.short})"
    if model.coordinate_attention:
        text += f" with coordinate attention ({COORDINATE_ATTENTION.short}) over its features"
        papers.append(COORDINATE_ATTENTION)
    layers = "two linear layers"
    if model.head == "deep":
        layers = f"three linear layers with group normalisation ({GROUP_NORM.short})"
        papers.append(GROUP_NORM)
    text += f", their mean over all positions, and {layers}, {model.hidden_dim} wide and with dropout"
    text += f" {model.dropout:g}, that gave each point's coordinates through a sigmoid; "
    start, paper = _start(model)
    return f"{text}{start}.", papers if paper is None else [*papers, paper]


def _start(model: LandmarkModelSection) -> tuple[str, Reference | None]:
    if model.init_from is not None:
        return "it started from given weights", None
    if model.pretrained == "imagenet":
        return f"the ResNet started from weights trained on ImageNet ({IMAGENET.short})", IMAGENET
    return f"the ResNet was initialised after {HE_INIT.short}", HE_INIT


def _frozen(config: LandmarkConfig) -> tuple[str, list[Reference]]:
    if config.frozen.epochs == 0:
        training = config.training
        same = training.trunk_learning_rate == training.learning_rate
        return "" if same else f"Everything but the head had a learning rate of {training.trunk_learning_rate:g}.", []
    kept = "the ResNet and the attention" if config.model.coordinate_attention else "the ResNet"
    rates = f"{config.training.learning_rate:g} (head) and {config.training.trunk_learning_rate:g} (the rest)"
    text = (
        f"For up to {config.frozen.epochs} epochs the head alone was trained, with a learning rate of "
        f"{config.frozen.learning_rate:g}, while {kept} kept weights and batch statistics; then everything was "
        f"trained, with {rates}."
    )
    return text, []


def _loss(loss: LandmarkLossSection) -> tuple[str, list[Reference]]:
    own = f"omega {loss.omega:g}, epsilon {loss.epsilon:g}"
    scale = "in pixels of a 224-pixel image"
    weights = loss.point_weights if isinstance(loss.point_weights, str) else "given"
    wing = f"wing loss ({WING.short}; {own} {scale})"
    beside = (
        f"plus {loss.central_weight:g} times the distance of the axis' points to the axis, plus "
        f"{loss.symmetry_weight:g} times squared asymmetry beyond 6 pixels"
    )
    text, paper = {
        "wing": (wing, WING),
        "weighted_wing": (f"{wing}, points weighted ({weights})", WING),
        "combined": (f"{wing}, {beside}", WING),
        "adaptive_wing": (f"adaptive wing loss ({ADAPTIVE_WING.short}), with its constants {scale}", ADAPTIVE_WING),
        "soft_wing": (f"soft wing loss ({SOFT_WING.short}), with its constants {scale}", SOFT_WING),
    }[loss.kind]
    classes = ", ".join(f"{name} {weight:g}" for name, weight in loss.class_weights.items())
    weighted = f"; images counted by class ({classes}, others 1)" if classes else ""
    return f"The loss was {text}{weighted}.", [paper]


def _scores(evaluation: LandmarkEvaluationSection) -> tuple[str, list[Reference]]:
    within = ", ".join(f"{t:g}" for t in evaluation.success_px)
    text = (
        "Errors are Euclidean distances to the true points, in pixels of a 224 x 224 image and of the image as it "
        f"came, beside those of the training split's mean shape; success rates count points within {within} pixels"
    )
    text += "; predictions were also averaged with those of the mirror image" if evaluation.tta else ""
    if not evaluation.bootstrap:
        return f"{text}.", []
    count = f"{evaluation.bootstrap:,} bootstrap resamplings of the images"
    return f"{text}; intervals hold 95 % of {count} ({BOOTSTRAP.short}).", [BOOTSTRAP]
