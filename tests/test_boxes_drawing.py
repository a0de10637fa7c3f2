"""What is drawn: lines around objects, labels that can be read and make way for one another."""

from __future__ import annotations

import numpy as np
import pytest

from backend.boxes_drawing import BoxDrawing, _colour, _overlap, _place, _text_colour

CLASSES = ["person", "car", "Fußgänger", "traffic light", "bus", "truck", "dog", "cat"]


def luminance(colour: tuple[int, int, int]) -> float:
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("label", range(8))
def test_text_stands_out_from_its_ground(label: int) -> None:
    """At least the 4.5 to 1 that WCAG 2.1 asks of text."""
    dark, light = sorted(luminance(colour) for colour in (_colour(label), _text_colour(_colour(label))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_neighbouring_classes_have_their_own_colours() -> None:
    assert len({_colour(label) for label in range(7)}) == 7
    assert _colour(7) == _colour(0)


def test_the_original_stays_as_it_was_and_the_object_is_not_painted_over() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    drawn = BoxDrawing(CLASSES).draw(image, np.array([[50, 60, 150, 160, 0.9, 1]], np.float32))
    assert (image == 90).all()
    assert (drawn[62:158, 52:148] == 90).all()
    assert (drawn[60:160, 47:50] == _colour(1)).all(axis=2).any(axis=1).all()
    assert (drawn[60:160, 150:153] == _colour(1)).all(axis=2).any(axis=1).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (16, 16), (320, 240), (3840, 2160)])
def test_pictures_of_every_size_can_be_drawn_on(width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    found = np.array([[0, 0, width, height, 0.99, 2], [0.2, 0.3, 0.9, 0.8, 0.7, 3]], np.float32)
    drawn = BoxDrawing(CLASSES).draw(image, found)
    assert drawn.shape == image.shape
    assert drawn.any() or width == 1


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1920, 1080)])
def test_labels_do_not_hide_one_another(width: int, height: int) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 0.8, (40, 2)) * (width, height)
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.2, (40, 2)) * (width, height)], axis=1)
    size = (width // 8, height // 20)
    labels = np.zeros((0, 4))
    for index, box in enumerate(boxes):
        place = _place(box, size, 2, (height, width, 3), labels, np.delete(boxes, index, axis=0))
        if place is not None:
            assert (_overlap(place[None], labels) < 0.3 * size[0] * size[1]).all()
            assert (place >= 0).all()
            assert (place[2:] <= (width, height)).all()
            labels = np.concatenate([labels, place[None]])
    assert len(labels) > 30


def test_a_label_stands_above_its_box_where_there_is_room() -> None:
    nothing = np.zeros((0, 4))
    place = _place(np.array([50, 60, 150, 160.0]), (40, 12), 2, (200, 300, 3), nothing, nothing)
    assert place is not None
    assert place.tolist() == [47, 45, 87, 57]
    place = _place(np.array([50, 0, 150, 160.0]), (40, 12), 2, (200, 300, 3), nothing, nothing)
    assert place is not None
    assert 0 <= place[1] < 12
