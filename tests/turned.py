"""Pictures that a camera noted to be turned."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np


def turned_jpeg(path: Path, orientation: int) -> np.ndarray:
    """A JPEG 32 wide and 16 high, its left half white, with a camera's note; returns the pixels as stored."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    content = cv2.imencode(".jpg", pixels)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:])
    return pixels
