"""How ids become file names, and how an output path is read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.storage.naming import Destination, parse_destination, safe_name

awkward = st.one_of(
    st.text(), st.text(alphabet="ab:/. é-_=", max_size=12), st.text(min_size=95, max_size=130)
)


@given(awkward, awkward)
def test_two_ids_have_two_names(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(awkward)
def test_a_name_is_one_that_every_store_takes(text: str) -> None:
    name = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9._=-]{1,100}", name)
    assert not name.startswith(".")


@given(st.text(alphabet="abcXYZ019_=-", min_size=1, max_size=100))
def test_a_plain_id_is_its_own_name(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("scheduled__2026-01-01T00:00:00+00:00", "scheduled__2026-01-01T00-00-00-00-00"),
        ("a" * 150, "a" * 149),
        (".hidden", "hidden"),
        ("..", "."),
        ("", "-"),
        ("\ud800", "-"),
    ],
)
def test_ids_that_look_alike_when_made_plain_stay_apart(one: str, other: str) -> None:
    assert safe_name(one) != safe_name(other)


@pytest.mark.parametrize(
    ("output_path", "address"),
    [
        ("/data/images/", Destination("file:///data/images", "default")),
        ("/data/images//", Destination("file:///data/images", "default")),
        ("/data//cover.png", Destination("file:///data", "cover", ".png")),
        ("//data//new//cover.png", Destination("file:///data/new", "cover", ".png")),
        ("s3://bucket/a//b/cover", Destination("s3://bucket/a//b", "cover")),
        ("/data/Nonesuch", Destination("file:///data", "Nonesuch")),
        ("/data/images", Destination("file:///data", "images")),
        ("/data/cover.png", Destination("file:///data", "cover", ".png")),
        ("/data/cover.jpeg", Destination("file:///data", "cover", ".jpeg")),
        ("/data/cover.WEBP", Destination("file:///data", "cover", ".WEBP")),
        ("/data/./new/.", Destination("file:///data/new", "default")),
        ("FILE:///data/cover.png", Destination("file:///data", "cover", ".png")),
        ("S3://Bucket/cover.png", Destination("s3://Bucket", "cover", ".png")),
        ("/data/C#/", Destination("file:///data/C#", "default")),
        ("/data/C?/cover#", Destination("file:///data/C?", "cover#")),
        ("/data/cover.v2", Destination("file:///data", "cover.v2")),
        ("/data/cover.png.jpg", Destination("file:///data", "cover.png", ".jpg")),
        (" /data/cover \n", Destination("file:///data", "cover")),
        ("s3://bucket/", Destination("s3://bucket", "default")),
        ("s3://bucket/cover.png", Destination("s3://bucket", "cover", ".png")),
        ("s3://conn@bucket/a/b/", Destination("s3://conn@bucket/a/b", "default")),
        ("file:///data/x", Destination("file:///data", "x")),
    ],
)
def test_a_slash_at_the_end_makes_a_folder_and_none_a_file(output_path: str, address: Destination) -> None:
    assert parse_destination(output_path, default_stem="default") == address


@pytest.mark.parametrize(
    ("output_path", "complaint"),
    [
        (None, "not an absolute path"),
        ("", "not an absolute path"),
        ("  \n", "not an absolute path"),
        ("images/", "not an absolute path"),
        ("./images/", "not an absolute path"),
        ("~/images/", "not an absolute path"),
        ("run:1/cover.png", "not an absolute path"),
        ("/data/../etc/cover.png", '".."'),
        ("/data/..", '".."'),
        ("s3://bucket/../other/", '".."'),
        ("/data/None/cover.png", "a part of it is None"),
        ("/data/None.png", "a part of it is None"),
        ("/data/x::a/cover", "chains file systems"),
        ("/", "no folder"),
        ("/cover.png", "no folder"),
        ("s3://", "no folder"),
        ("s3://bucket", "no folder"),
        ("file:///", "no folder"),
        ("/data/.png", "no file name"),
        (f"/data/{'n' * 300}.png", "too long"),
        (f"/data/{'é' * 130}", "too long"),
        ("/data/a\0b.png", "control character"),
        ("/data/a\nb/", "control character"),
        ("/data/\ud800/", "control character"),
    ],
)
def test_a_path_that_cannot_hold_an_image_is_refused(output_path: object, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse_destination(output_path, default_stem="default")


def test_the_connection_is_no_part_of_an_addresss_identity() -> None:
    paths = ("s3://one@bucket/a/x", "s3://other@bucket/a/x", "s3://bucket/a/x.png")
    assert {parse_destination(path, default_stem="d").identity for path in paths} == {"s3://bucket/a/x"}


def test_an_at_sign_in_a_folder_is_part_of_the_identity() -> None:
    one, other = (parse_destination(f"s3://bucket/{name}@b/x", default_stem="d").identity for name in "ac")
    assert one != other


def test_a_plain_path_and_its_file_uri_are_one_address() -> None:
    assert parse_destination("/x/y", default_stem="d") == parse_destination("file:///x/y", default_stem="d")


@pytest.mark.parametrize(
    ("extension", "media_type", "name"),
    [
        ("", "image/png", "x.png"),
        ("", "image/jpeg", "x.jpg"),
        ("", "image/webp", "x.webp"),
        (".png", "image/jpeg", "x.jpg"),
        (".jpg", "image/png", "x.png"),
        (".jpeg", "image/jpeg", "x.jpeg"),
        (".jpeg", "image/png", "x.png"),
        (".JPG", "image/jpeg", "x.JPG"),
        (".JPEG", "image/jpeg", "x.JPEG"),
        (".PNG", "image/png", "x.PNG"),
    ],
)
def test_a_file_has_the_extension_of_its_real_format(extension: str, media_type: str, name: str) -> None:
    assert Destination("file:///data", "x", extension).file_name(media_type) == name


@pytest.mark.parametrize(
    ("output_path", "record_name"),
    [
        ("/data/covers/cover.png", "cover-e5e114712ca5a1a0"),
        ("/data/C# 12/what?/100%20 (é)/x", "x-d2719f31ab186aad"),
        ("/data//a//x.jpg", "x-74edd2a438e0339d"),
        ("s3://conn@bucket/a//b/c#d/x", "x-eb07fedaffb2ba7d"),
        ("file:///data/e\u0301/x", "x-e131d00491f341be"),
        ("s3a://bucket/v1./x", "x-a8d9a49333d7eff4"),
        ("abfs://conn@container/a/b/x", "x-39434fb70f312e54"),
        ("gs://bucket/x", "x-141469540c8d3874"),
    ],
)
def test_the_records_of_an_address_have_the_name_that_0_1_0_gave_them(
    output_path: str, record_name: str
) -> None:
    assert parse_destination(output_path, default_stem="d").record_name == record_name
