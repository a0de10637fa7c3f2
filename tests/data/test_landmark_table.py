"""What a landmark dataset's folder, table and `landmarks.yaml` may hold, and what is said of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadDataError
from backend.preprocessing.landmark_set import LUNGS
from tests.data.landmark_dataset import faces, lungs, write_image, write_rows
from training.data.landmarks.images import read_annotated


def csv_of(root: Path) -> Path:
    return next(root.rglob("*.csv"))


def refused(root: Path) -> str:
    with pytest.raises(BadDataError) as caught:
        read_annotated(root)
    return str(caught.value)


def lines_of(root: Path) -> list[str]:
    return csv_of(root).read_text().splitlines()


def rewrite(root: Path, lines: list[str]) -> None:
    csv_of(root).write_text("\n".join(lines) + "\n")


# --- what is read -----------------------------------------------------------------------------------------------------


def test_the_old_programs_layout(tmp_path):
    found = read_annotated(lungs(tmp_path, 7))
    assert found.landmark_set == LUNGS
    assert found.classes == ["COVID", "Normal", "Viral_Pneumonia"]
    assert found.class_of.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.names[2] == "Viral Pneumonia-2"
    assert found.sources[2].relative == "dataset/Viral_Pneumonia/Viral Pneumonia-2.png"
    cells = [float(cell) for cell in lines_of(tmp_path)[4].split(",")[1:-1]]
    assert found.points[4].ravel().tolist() == cells
    assert set(found.groups) == {None} and found.without_points == 0


def test_names_may_have_their_extension_and_images_no_points(tmp_path):
    lungs(tmp_path, 4)
    rewrite(tmp_path, [f"{line}.PNG" for line in lines_of(tmp_path)])
    write_image(tmp_path / "dataset" / "Normal" / "other.jpg")
    found = read_annotated(tmp_path)
    assert found.names[0] == "COVID-0" and found.without_points == 1


def test_a_header_may_have_its_columns_in_any_order(tmp_path):
    faces(tmp_path, patient=["a", "a", "b", *[""] * 9], note=["x"] * 12, **{"class": ["old", "new"] * 6})
    header, *rows = [line.split(",") for line in lines_of(tmp_path)]
    order = np.random.default_rng(3).permutation(len(header))
    rewrite(tmp_path, [",".join(cells[i] for i in order) for cells in (header, *rows)])
    found = read_annotated(tmp_path)
    names = found.landmark_set.names
    assert sorted(names) == ["chin", "left", "nose", "right"]
    nose = [float(rows[5][header.index(f"nose_{axis}")]) for axis in "xy"]
    assert found.points[5, names.index("nose")].tolist() == nose
    assert found.classes == ["new", "old"] and found.class_of[:3].tolist() == [1, 0, 1]
    assert list(found.groups[:4]) == ["a", "a", "b", None]
    assert not found.landmark_set.mirrors


def test_a_table_of_other_points_without_a_header(tmp_path):
    write_image(tmp_path / "a.png")
    write_rows(tmp_path / "points.csv", [[0, 1, 2, 3, 4, "a"]])
    found = read_annotated(tmp_path)
    assert found.landmark_set.names == ("P1", "P2") and not found.landmark_set.mirrors
    assert found.classes == ["all"]


LAYOUT = """
csv: points.csv
images: images
points: [chin, left, right, nose]
pairs: [[left, right]]
spans: {inter_ocular: {from: [left], to: [right]}, height: {from: [left, right], to: [chin]}}
mm_per_px: 0.5
class_column: kind
group_column: who
classes: [yes, no]
"""


def test_landmarks_yaml_says_it_all(tmp_path):
    faces(tmp_path, layout=LAYOUT, kind=["no", "yes"] * 6, who=[str(i // 3) for i in range(12)])
    (tmp_path / "other.csv").write_text("1,2\n")
    found = read_annotated(tmp_path)
    points = found.landmark_set
    assert points.names == ("chin", "left", "right", "nose") and points.pairs == ((1, 2),) and points.mirrors
    assert [(span.name, span.start, span.end) for span in points.spans] == [
        ("inter_ocular", (1,), (2,)),
        ("height", (1, 2), (0,)),
    ]
    assert points.mm_per_px == 0.5
    assert found.classes == ["yes", "no"] and found.class_of[:2].tolist() == [1, 0]
    assert found.groups[4] == "1"


def test_an_empty_list_of_pairs_says_that_a_mirror_changes_no_name(tmp_path):
    found = read_annotated(faces(tmp_path, layout="pairs: []"))
    assert found.landmark_set.mirrors and found.landmark_set.pairs == ()


def test_links_that_lead_round_are_walked_once(tmp_path):
    lungs(tmp_path, 4)
    (tmp_path / "dataset" / "Normal" / "again").symlink_to(tmp_path)
    assert len(read_annotated(tmp_path).names) == 4


# --- what is refused --------------------------------------------------------------------------------------------------


def change(number: int, edit):
    """Edits one line of the table, counted from 1."""

    def apply(root):
        lines = lines_of(root)
        lines[number - 1] = edit(lines[number - 1])
        rewrite(root, lines)

    return apply


def cell(position: int, value: str):
    def edit(line):
        cells = line.split(",")
        cells[position] = value
        return ",".join(cells)

    return edit


def second_image(root):
    shutil.copy(root / "dataset/COVID/COVID-0.png", root / "dataset/Normal/COVID-0.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (change(3, lambda line: line + ",7"), ", line 3: has 33 columns, expected 32"),
        (change(3, lambda line: line.split(",", 1)[1]), ", line 3: has 31 columns, expected 32"),
        (change(3, cell(4, "abc")), ", line 3: L2 has abc, expected a number of pixels"),
        (change(1, cell(3, "")), ", line 1: L2 has nothing, expected a number of pixels"),
        (change(2, cell(30, "nan")), ", line 2: L15 has nan, expected a number of pixels"),
        (change(2, cell(31, "")), ", line 2: there is no image's name"),
        (change(2, cell(31, "ghost")), ", line 2: there is no image ghost below"),
        (change(2, cell(31, "COVID-0")), ", line 2: COVID-0 stands already in line 1"),
        (second_image, ", line 1: COVID/COVID-0.png and Normal/COVID-0.png have one name"),
        (lambda root: csv_of(root).write_text(""), "is empty"),
        (lambda root: csv_of(root).write_bytes(b"\xff\xfe\x00"), "cannot be read as CSV"),
        (lambda root: csv_of(root).write_text('0,"1'), "cannot be read as CSV"),
        (lambda root: csv_of(root).write_text("image;a_x;a_y\nCOVID-0;1;2\n"), "expected cells parted by commas"),
        (lambda root: csv_of(root).write_text("0,1,2,3,COVID-0\n"), "has 5 columns and no header"),
        (lambda root: csv_of(root).unlink(), "holds no CSV"),
        (lambda root: shutil.rmtree(root / "dataset"), "holds no images"),
        (lambda root: shutil.copy(csv_of(root), root / "b.csv"), "holds 2 CSV files (b.csv, coordenadas/"),
        (lambda root: shutil.rmtree(root) or root.mkdir(), "holds no files"),
    ],
)
def test_a_spoiled_table_without_header_is_told_in_one_line(tmp_path, spoil, words):
    root = lungs(tmp_path / "lungs", 4)
    spoil(root)
    told = refused(root).replace("dataset/", "")
    assert words in told and str(root) in told and "\n" not in told


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (lambda names: ["file", *names[1:]], "line 1: there is no column image"),
        (lambda names: [names[0], "left_z", *names[2:]], "line 1: there is no column left_x, but left_y"),
        (lambda names: [*names[:2], "right_q", *names[3:]], "line 1: there is no column left_y"),
        (lambda names: [*names[:3], "left_x", *names[4:]], "line 1: the column left_x stands twice"),
        (lambda names: ["image", *"abcdefgh"], "line 1: has no columns NAME_x and NAME_y"),
    ],
)
def test_a_spoiled_header_names_the_column(tmp_path, header, words):
    faces(tmp_path)
    names, *rows = lines_of(tmp_path)
    rewrite(tmp_path, [",".join(header(names.split(","))), *rows])
    assert words in refused(tmp_path)


def test_a_table_of_nothing_but_a_header(tmp_path):
    faces(tmp_path)
    rewrite(tmp_path, lines_of(tmp_path)[:1])
    assert "has a header and no rows" in refused(tmp_path)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("pairs: [[left, rigth]]", "pairs: there is no point rigth; the points are left, right, nose, chin"),
        ("pairs: [[left, left]]", "pairs: [left, left] is no pair"),
        ("pairs: [[left, right, nose]]", "pairs: [left, right, nose] is no pair"),
        ("pairs: [[left, right], [right, nose]]", "right stands twice among the pairs"),
        ("spans: {a: {from: [left], to: [x]}}", "spans.a: there is no point x"),
        ("spans: {a: {from: [left]}}", "spans.a.to: Field required"),
        ("points: [left, mouth]", "there is no column mouth_x"),
        ("class_column: kind", "there is no column kind"),
        ("group_column: who", "there is no column who"),
        ("classes: [images, tail]", "classes: tail has no images"),
        ("classes: [face]", "its class all is not among the classes"),
        ("csv: gone.csv", "csv: there is no file"),
        ("images: gone", "images: there is no folder"),
        ("mm_per_px: -1", "mm_per_px: Input should be greater than 0"),
        ("mirror: []", "there is no key mirror; expected some of csv, images"),
        ("- 1", "expected keys and values"),
        ("a: [", "no valid YAML"),
    ],
)
def test_a_wrong_landmarks_yaml_is_told_by_its_key(tmp_path, layout, words):
    text = layout if layout.startswith(("images", "a:", "-", "csv")) else f"images: images\n{layout}"
    told = refused(faces(tmp_path, layout=text))
    assert words in told and ("landmarks.yaml" in told or "points.csv" in told)


def test_a_layout_without_pairs_refuses_other_numbers_of_points(tmp_path):
    root = lungs(tmp_path, 4)
    (root / "landmarks.yaml").write_text("points: [a, b]")
    assert "has 15 points, but landmarks.yaml names 2" in refused(root)


def test_all_that_is_wrong_is_told_at_once_ten_lines_of_it(tmp_path):
    root = lungs(tmp_path, 20)
    rewrite(root, [cell(5, "?")(line) if i % 20 < 14 else line for i, line in enumerate(lines_of(root))])
    told = refused(root).split("\n")
    assert told[0] == "14 things are wrong:"
    assert len(told) == 12 and told[11].strip() == "… and 4 more"
    assert told[10].endswith("line 10: L3 has ?, expected a number of pixels")
