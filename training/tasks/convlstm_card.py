"""What a nowcasting run's model card says: from the configuration and the dataset's facts, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training.tasks.card import Card, Reference

if TYPE_CHECKING:
    from training.schemas.convlstm import ConvLSTMConfig, ConvLSTMSection, RadarDataSection, RadarLossSection

SHI = Reference(
    "shi2015convlstm",
    "Shi et al. 2015",
    "inproceedings",
    "Shi, Xingjian and Chen, Zhourong and Wang, Hao and Yeung, Dit-Yan and Wong, Wai-Kin and Woo, Wang-chun",
    "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting",
    2015,
    {"booktitle": "Advances in Neural Information Processing Systems", "volume": "28", "eprint": "1506.04214"},
)
SSIM = Reference(
    "wang2004ssim",
    "Wang et al. 2004",
    "article",
    "Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.",
    "Image Quality Assessment: From Error Visibility to Structural Similarity",
    2004,
    {
        "journal": "IEEE Transactions on Image Processing",
        "volume": "13",
        "number": "4",
        "pages": "600--612",
        "doi": "10.1109/TIP.2003.819861",
    },
)
HUBER = Reference(
    "huber1964robust",
    "Huber 1964",
    "article",
    "Huber, Peter J.",
    "Robust Estimation of a Location Parameter",
    1964,
    {
        "journal": "The Annals of Mathematical Statistics",
        "volume": "35",
        "number": "1",
        "pages": "73--101",
        "doi": "10.1214/aoms/1177703732",
    },
)
XAVIER = Reference(
    "glorot2010initialization",
    "Glorot and Bengio 2010",
    "inproceedings",
    "Glorot, Xavier and Bengio, Yoshua",
    "Understanding the Difficulty of Training Deep Feedforward Neural Networks",
    2010,
    {
        "booktitle": "Proceedings of the 13th International Conference on Artificial Intelligence and Statistics",
        "pages": "249--256",
    },
)
LAYER_NORM = Reference(
    "ba2016layernorm",
    "Ba et al. 2016",
    "misc",
    "Ba, Jimmy Lei and Kiros, Jamie Ryan and Hinton, Geoffrey E.",
    "Layer Normalization",
    2016,
    {"eprint": "1607.06450", "archiveprefix": "arXiv"},
)
GROUP_NORM = Reference(
    "wu2018groupnorm",
    "Wu and He 2018",
    "inproceedings",
    "Wu, Yuxin and He, Kaiming",
    "Group Normalization",
    2018,
    {"booktitle": "Proceedings of the European Conference on Computer Vision (ECCV)", "eprint": "1803.08494"},
)
WILKS = Reference(
    "wilks2011statistical",
    "Wilks 2011",
    "book",
    "Wilks, Daniel S.",
    "Statistical Methods in the Atmospheric Sciences",
    2011,
    {"edition": "3rd", "publisher": "Academic Press"},
)

_METHODS = {
    "area": "the mean over their area in dBZ",
    "area_linear_z": "the mean over their area in linear reflectivity",
    "linear": "linear interpolation",
    "maximum": "the maximum over their area",
}
_LIMITS = (
    "It extrapolates echo that it has seen; storms that are born after the newest frame are not in it.",
    "Forecasts smooth with lead time, and rare strong echo fades first: read the scores at the threshold that matters.",
    "It holds for radars, grids, cadences and climates like those it was trained on.",
    "It is no warning system: nothing here measures what a missed or a false alarm costs.",
)


def convlstm_card(config: ConvLSTMConfig, facts: Mapping[str, Any]) -> Card:
    """The card of a model that was trained with ``config`` on data with these ``facts``."""
    data = config.data
    model, model_references = _model(config.model)
    loss, loss_references = _loss(config.loss)
    return Card(
        what=f"It forecasts the next {data.prediction_steps} frames of radar reflectivity from the last "
        f"{data.input_steps}, each vertical level by itself.",
        uses=[
            "Nowcasting: where echo will be within the lead times that were verified.",
            "Research on nowcasting, beside persistence and extrapolation on the identical pixels.",
        ],
        limits=_LIMITS,
        method=[*_data(data, facts), model, loss, *_scores(config)],
        references=[SHI, *model_references, *loss_references, WILKS],
    )


def _data(data: RadarDataSection, facts: Mapping[str, Any]) -> list[str]:
    levels = {"all": "Every level", "max": "The maximum over the levels"}.get(str(data.levels), "Each chosen level")
    seconds = facts.get("cadence_seconds")
    cadence = f" (one frame every {seconds:g} s)" if seconds else ""
    grid = facts.get("grid", "the grid of the files")
    reduced = f", brought there by {_METHODS[data.downsample_method]}" if data.downsample_size else ""
    fill = "the lowest reflectivity" if data.fill_means == "no_echo" else "missing"
    windows = f"Windows of {data.input_steps} input and {data.prediction_steps} target frames{cadence}"
    scaled = f"Reflectivity was clipped to {data.min_dbz:g} to {data.max_dbz:g} dBZ and scaled to 0 to 1"
    return [
        f"{levels} of the radar volumes was a sequence of its own, on {grid}{reduced}.",
        f"{windows} began every {data.stride} frames; none reached over a break in time.",
        f"{scaled}, in {data.pack_bits} bits; fill values counted as {fill}.",
    ]


def _model(model: ConvLSTMSection) -> tuple[str, list[Reference]]:
    layers = len(model.hidden_dims)
    channels = ", ".join(map(str, model.hidden_dims))
    text = (
        f"The model was a convolutional LSTM ({SHI.short}) of {layers} layer{'s' if layers > 1 else ''} with "
        f"{channels} hidden channels and {model.kernel_size}x{model.kernel_size} kernels"
    )
    references = []
    if model.norm != "none" and layers > 1:
        norm, name = (LAYER_NORM, "layer") if model.norm == "layer" else (GROUP_NORM, "group")
        text += f", {name} normalisation ({norm.short}) between layers"
        references.append(norm)
    text += ", and a convolution that read all lead times from the last hidden state; it "
    if model.init_from is not None:
        return f"{text}started from given weights.", references
    return f"{text}was initialised after {XAVIER.short}.", [*references, XAVIER]


def _loss(loss: RadarLossSection) -> tuple[str, list[Reference]]:
    w = loss.ssim_weight
    huber = f"{1 - w:g} times the Huber loss ({HUBER.short}; delta {loss.huber_delta:g})"
    if loss.high_penalty_weight != 1:
        huber += f", pixels above {loss.high_threshold:g} weighted {loss.high_penalty_weight:g} times"
    ssim = (
        f"{w:g} times structural dissimilarity, 1 - SSIM ({SSIM.short}; {loss.ssim_window}x{loss.ssim_window} window, "
        f"sigma {loss.ssim_sigma:g})"
    )
    parts = [text for text, share in ((huber, 1 - w), (ssim, w)) if share > 0]
    weighted = "; leads were weighted " + ", ".join(f"{x:g}" for x in loss.lead_weights) if loss.lead_weights else ""
    references = [*([HUBER] if w < 1 else []), SSIM]  # the scores measure SSIM whatever the loss
    return f"The loss was {', plus '.join(parts)}, over pixels that have data{weighted}.", references


def _scores(config: ConvLSTMConfig) -> list[str]:
    thresholds = ", ".join(f"{threshold:g}" for threshold in config.evaluation.thresholds_dbz)
    text = (
        f"Forecasts were verified by CSI, POD, FAR, frequency bias and HSS ({WILKS.short}) at {thresholds} dBZ, by "
        f"mean absolute and root mean square error, and by SSIM ({SSIM.short}), for each lead and pooled, beside "
        "persistence on the identical pixels."
    )
    return [text]
