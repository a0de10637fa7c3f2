"""The papers behind what every task shares: optimizer, schedule, precision, averaging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.tasks.card import Reference

ADAMW = Reference(
    "loshchilov2019adamw",
    "Loshchilov and Hutter 2019",
    "inproceedings",
    "Loshchilov, Ilya and Hutter, Frank",
    "Decoupled Weight Decay Regularization",
    2019,
    {"booktitle": "International Conference on Learning Representations (ICLR)", "eprint": "1711.05101"},
)
COSINE = Reference(
    "loshchilov2017sgdr",
    "Loshchilov and Hutter 2017",
    "inproceedings",
    "Loshchilov, Ilya and Hutter, Frank",
    "SGDR: Stochastic Gradient Descent with Warm Restarts",
    2017,
    {"booktitle": "International Conference on Learning Representations (ICLR)", "eprint": "1608.03983"},
)
CLIPPING = Reference(
    "pascanu2013difficulty",
    "Pascanu et al. 2013",
    "inproceedings",
    "Pascanu, Razvan and Mikolov, Tomas and Bengio, Yoshua",
    "On the Difficulty of Training Recurrent Neural Networks",
    2013,
    {"booktitle": "Proceedings of the 30th International Conference on Machine Learning", "pages": "1310--1318"},
)
FP16 = Reference(
    "micikevicius2018mixed",
    "Micikevicius et al. 2018",
    "inproceedings",
    "Micikevicius, Paulius and Narang, Sharan and Alben, Jonah and Diamos, Gregory and Elsen, Erich and Garcia, David "
    "and Ginsburg, Boris and Houston, Michael and Kuchaiev, Oleksii and Venkatesh, Ganesh and Wu, Hao",
    "Mixed Precision Training",
    2018,
    {"booktitle": "International Conference on Learning Representations (ICLR)", "eprint": "1710.03740"},
)
BF16 = Reference(
    "kalamkar2019bfloat16",
    "Kalamkar et al. 2019",
    "misc",
    "Kalamkar, Dhiraj and Mudigere, Dheevatsa and Mellempudi, Naveen and others",
    "A Study of BFLOAT16 for Deep Learning Training",
    2019,
    {"eprint": "1905.12322", "archiveprefix": "arXiv"},
)
AVERAGING = Reference(
    "polyak1992averaging",
    "Polyak and Juditsky 1992",
    "article",
    "Polyak, Boris T. and Juditsky, Anatoli B.",
    "Acceleration of Stochastic Approximation by Averaging",
    1992,
    {"journal": "SIAM Journal on Control and Optimization", "volume": "30", "number": "4", "pages": "838--855"},
)
SUBLINEAR = Reference(
    "chen2016sublinear",
    "Chen et al. 2016",
    "misc",
    "Chen, Tianqi and Xu, Bing and Zhang, Chiyuan and Guestrin, Carlos",
    "Training Deep Nets with Sublinear Memory Cost",
    2016,
    {"eprint": "1604.06174", "archiveprefix": "arXiv"},
)
PYTORCH = Reference(
    "paszke2019pytorch",
    "Paszke et al. 2019",
    "inproceedings",
    "Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James and Chanan, Gregory and "
    "others",
    "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
    2019,
    {"booktitle": "Advances in Neural Information Processing Systems", "volume": "32", "eprint": "1912.01703"},
)


def shared_references(config: Mapping[str, Any], precision: str) -> list[Reference]:
    """Those that a run with this configuration used; ``precision`` is what `training.amp` became."""
    training = config.get("training") or {}
    if not training:
        return []
    used = (
        (ADAMW, True),
        (COSINE, training.get("schedule") == "cosine"),
        (CLIPPING, training.get("clip_grad_norm") is not None),
        (BF16, precision == "bf16"),
        (FP16, precision == "fp16"),
        (AVERAGING, training.get("ema_decay") is not None),
        (SUBLINEAR, bool((config.get("model") or {}).get("gradient_checkpointing"))),
        (PYTORCH, True),
    )
    return [reference for reference, is_used in used if is_used]
