"""What a manifest may say, and how everything that is wrong in one is told at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.errors import ConfigError
from training.fetching.manifest import Manifest, Source, drive_manifest, load_manifest

SHA = "0123456789abcdef" * 4
ID = "1aBcDeFgHiJkLmNoPqRsTuVwXyZ"


def load(tmp_path: Path, text: str) -> Manifest:
    path = tmp_path / "radar.yaml"
    path.write_text(text)
    return load_manifest(path)


def refused(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path / 'radar.yaml'}: ", "").splitlines()


def test_a_complete_manifest(tmp_path: Path) -> None:
    manifest = load(
        tmp_path,
        f"""
name: sevir
version: 2
license: CC BY 4.0
description: Radar volumes
sources:
  - gdrive: https://drive.google.com/file/d/{ID}/view?usp=sharing
  - https: https://me:hidden@example.org/sevir.tar.zst?sig=hidden
  - file: parts/sevir.tar.zst
  - rclone: "cloud,token=hidden:data/sevir.tar.zst"
  - fsspec: s3://bucket/sevir.tar.zst
size: 100
unpacked_size: 200
sha256: "{SHA.upper()}"
format: tar.zst
limits: {{total_bytes: 1000, ratio: 20}}
timeouts: {{stall: 30}}
keep_archive: true
""",
    )
    assert [source.label for source in manifest.sources] == [
        f"gdrive {ID}",
        "https://example.org/sevir.tar.zst",
        f"file {tmp_path}/parts/sevir.tar.zst",
        "rclone cloud:data/sevir.tar.zst",
        "s3://bucket/sevir.tar.zst",
    ]
    assert [source.file_name for source in manifest.sources] == ["", *["sevir.tar.zst"] * 4]
    assert (manifest.name, manifest.version, manifest.sha256) == ("sevir", "2", SHA)
    assert (manifest.limits.ratio, manifest.limits.members) == (20, 1_000_000)
    assert (manifest.timeouts.stall, manifest.timeouts.connect) == (30, 15)


def test_a_manifest_needs_a_source_alone(tmp_path: Path) -> None:
    manifest = load(tmp_path, f"sources: [{{gdrive: {ID}}}]")
    assert (manifest.name, manifest.sources) == ("radar", (Source("gdrive", ID),))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        """
nme: x
sources:
  - gdrive: https://drive.google.com/drive/folders/1aBcDeFgHiJkLmNoPqRsTuVwXyZ
  - htps: https://example.org
  - {gdrive: a, https: b}
  - https: ftp://example.org/x
  - rclone: nowhere
  - gdrive: "?"
size: -1
sha256: abc
format: rar
limits: {member: 3}
timeouts: {stall: soon}
""",
    )
    assert said[0] == "12 things are wrong:"
    for words in (
        "there is no key nme; did you mean name?",
        "sources[1]: this is a Drive folder's link",
        "sources[2]: there is no kind htps; did you mean https?",
        "sources[3]: expected one `kind: address`",
        "sources[4]: ftp://example.org/x is no https:// URL",
        "sources[5]: expected remote:path",
        "sources[6]: expected a Drive file's id",
        "size: ",
        "sha256: expected the 64 hexadecimal digits",
        "format: ",
        "there is no key limits.member; did you mean members?",
        "timeouts.stall: ",
    ):
        assert sum(words in line for line in said) == 1, (words, said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("name: x", "sources is missing"),
        ("sources: []", "sources: "),
        ("name: ../x\nsources: [{file: x}]", "name: expected letters"),
        ("name: .x\nsources: [{file: x}]", "name: expected letters"),
        ("sources: [{https: http://example.org/x.zip}]", "plain http"),
        ("sources: [x\n", "no valid YAML"),
    ],
)
def test_a_manifest_that_will_not_do(tmp_path: Path, text: str, words: str) -> None:
    said = refused(tmp_path, text)
    assert len(said) == 1
    assert words in said[0]


def test_plain_http_with_a_sha256_or_on_this_machine(tmp_path: Path) -> None:
    assert load(tmp_path, f"sources: [{{https: 'http://example.org/x.zip'}}]\nsha256: '{SHA}'")
    assert load(tmp_path, "sources: [{https: 'http://127.0.0.1:8/x.zip'}]")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.manifest .*gone.yaml: no such file"):
        load_manifest(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"https://drive.google.com/file/d/{ID}/view?usp=drive_link",
        f"https://drive.google.com/open?id={ID}",
        f"https://drive.google.com/uc?export=download&id={ID}",
        f"https://drive.usercontent.google.com/download?id={ID}&export=download",
        f" {ID} ",
    ],
)
def test_an_id_is_found_in_any_of_its_links(text: str) -> None:
    assert drive_manifest(text, "convlstm", "--drive-id").sources == (Source("gdrive", ID),)


@pytest.mark.parametrize("text", ["", "short", "https://example.org/file/d/" + ID, "https://drive.google.com/"])
def test_what_is_no_id_is_refused_by_its_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--drive-id: expected a Drive file's id"):
        drive_manifest(text, "convlstm", "--drive-id")


def test_the_documented_manifest_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    manifest = load(tmp_path, text)
    assert set(manifest.model_fields_set) == set(Manifest.model_fields), "every key is shown"
    assert [source.kind for source in manifest.sources] == ["gdrive", "https", "rclone", "fsspec", "file"]
