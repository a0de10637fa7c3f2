"""The papers behind detectors, as model cards cite them."""

from __future__ import annotations

from training.tasks.card import Reference

_CVPR = "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)"
_ICCV = "IEEE/CVF International Conference on Computer Vision (ICCV)"
_ECCV = "European Conference on Computer Vision (ECCV)"

FASTER_RCNN = Reference(
    "ren2015faster",
    "Ren et al. 2015",
    "inproceedings",
    "Ren, Shaoqing and He, Kaiming and Girshick, Ross and Sun, Jian",
    "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
    2015,
    {"booktitle": "Advances in Neural Information Processing Systems", "volume": "28", "eprint": "1506.01497"},
)
PYRAMID = Reference(
    "lin2017pyramid",
    "Lin et al. 2017a",
    "inproceedings",
    r"Lin, Tsung-Yi and Doll{\'a}r, Piotr and Girshick, Ross and He, Kaiming and Hariharan, Bharath and "
    "Belongie, Serge",
    "Feature Pyramid Networks for Object Detection",
    2017,
    {"booktitle": _CVPR, "eprint": "1612.03144"},
)
RETINANET = Reference(
    "lin2017focal",
    "Lin et al. 2017b",
    "inproceedings",
    r"Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Doll{\'a}r, Piotr",
    "Focal Loss for Dense Object Detection",
    2017,
    {"booktitle": _ICCV, "eprint": "1708.02002"},
)
STRONG_HEADS = Reference(
    "li2021benchmarking",
    "Li et al. 2021",
    "misc",
    r"Li, Yanghao and Xie, Saining and Chen, Xinlei and Doll{\'a}r, Piotr and He, Kaiming and Girshick, Ross",
    "Benchmarking Detection Transfer Learning with Vision Transformers",
    2021,
    {"eprint": "2111.11429", "archiveprefix": "arXiv"},
)
MOBILENET = Reference(
    "howard2019mobilenetv3",
    "Howard et al. 2019",
    "inproceedings",
    "Howard, Andrew and Sandler, Mark and Chu, Grace and Chen, Liang-Chieh and Chen, Bo and Tan, Mingxing and "
    "Wang, Weijun and Zhu, Yukun and Pang, Ruoming and Vasudevan, Vijay and Le, Quoc V. and Adam, Hartwig",
    "Searching for MobileNetV3",
    2019,
    {"booktitle": _ICCV, "eprint": "1905.02244"},
)
RTDETR = Reference(
    "zhao2024rtdetr",
    "Zhao et al. 2024",
    "inproceedings",
    "Zhao, Yian and Lv, Wenyu and Xu, Shangliang and Wei, Jinman and Wang, Guanzhong and Dang, Qingqing and Liu, Yi "
    "and Chen, Jie",
    "DETRs Beat YOLOs on Real-time Object Detection",
    2024,
    {"booktitle": _CVPR, "eprint": "2304.08069"},
)
RTDETR_V2 = Reference(
    "lv2024rtdetrv2",
    "Lv et al. 2024",
    "misc",
    "Lv, Wenyu and Zhao, Yian and Chang, Qinyao and Huang, Kui and Wang, Guanzhong and Liu, Yi",
    "RT-DETRv2: Improved Baseline with Bag-of-Freebies for Real-Time Detection Transformer",
    2024,
    {"eprint": "2407.17140", "archiveprefix": "arXiv"},
)
DETR = Reference(
    "carion2020detr",
    "Carion et al. 2020",
    "inproceedings",
    "Carion, Nicolas and Massa, Francisco and Synnaeve, Gabriel and Usunier, Nicolas and Kirillov, Alexander and "
    "Zagoruyko, Sergey",
    "End-to-End Object Detection with Transformers",
    2020,
    {"booktitle": _ECCV, "eprint": "2005.12872"},
)
DENOISING = Reference(
    "li2022dndetr",
    "Li et al. 2022",
    "inproceedings",
    "Li, Feng and Zhang, Hao and Liu, Shilong and Guo, Jian and Ni, Lionel M. and Zhang, Lei",
    "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising",
    2022,
    {"booktitle": _CVPR, "eprint": "2203.01305"},
)
VARIFOCAL = Reference(
    "zhang2021varifocal",
    "Zhang et al. 2021",
    "inproceedings",
    r"Zhang, Haoyang and Wang, Ying and Dayoub, Feras and S{\"u}nderhauf, Niko",
    "VarifocalNet: An IoU-aware Dense Object Detector",
    2021,
    {"booktitle": _CVPR, "eprint": "2008.13367"},
)
GIOU = Reference(
    "rezatofighi2019giou",
    "Rezatofighi et al. 2019",
    "inproceedings",
    "Rezatofighi, Hamid and Tsoi, Nathan and Gwak, JunYoung and Sadeghian, Amir and Reid, Ian and Savarese, Silvio",
    "Generalized Intersection over Union: A Metric and a Loss for Bounding Box Regression",
    2019,
    {"booktitle": _CVPR, "eprint": "1902.09630"},
)
BATCH_NORM = Reference(
    "ioffe2015batchnorm",
    "Ioffe and Szegedy 2015",
    "inproceedings",
    "Ioffe, Sergey and Szegedy, Christian",
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015,
    {"booktitle": "International Conference on Machine Learning (ICML)", "eprint": "1502.03167"},
)
MOSAIC = Reference(
    "bochkovskiy2020yolov4",
    "Bochkovskiy et al. 2020",
    "misc",
    "Bochkovskiy, Alexey and Wang, Chien-Yao and Liao, Hong-Yuan Mark",
    "YOLOv4: Optimal Speed and Accuracy of Object Detection",
    2020,
    {"eprint": "2004.10934", "archiveprefix": "arXiv"},
)
COCO = Reference(
    "lin2014coco",
    "Lin et al. 2014",
    "inproceedings",
    "Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva and "
    r"Doll{\'a}r, Piotr and Zitnick, C. Lawrence",
    "Microsoft COCO: Common Objects in Context",
    2014,
    {"booktitle": _ECCV, "eprint": "1405.0312"},
)
