"""The one form of an address: what is compared is what is opened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.storage.address import address_of, normalize, without_connection

FINE_IN_0_1_0 = [
    "/data/covers/",
    "/data/C# 12/what?/100%20 (é)/x",
    "/data/e\u0301/x",
    "/data/a\\b/v1./x",
    "/data/{0a1b-22}/x",
    "s3://bucket/a//b/c#d/e?f/g%20h i/",
    "s3://conn_id@bucket/v1./a\\b",
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/mine/x",
    "s3a://team:s3@bucket/x",
    "gs://bucket_1/a//b/",
    "abfs://conn@container/a/b/",
    "abfs://container@account.dfs.core.windows.net/a",
    "abfs://$web/images/",
    "abfss://conn@$web/images/",
    "abfs://$logs/x",
    "az://$root/x",
    "hdfs:///data/x",
    "sftp://conn@host:22/data/x/",
    "memory://x/y",
]


@pytest.mark.parametrize("address", FINE_IN_0_1_0)
def test_an_address_that_a_store_reads_as_it_is_written_stays_as_it_is(address: str) -> None:
    assert normalize(address) == (f"file://{address}" if address.startswith("/") else address)


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("/d/./x", "file:///d/x"),
        ("/./d/././x/.", "file:///d/x/"),
        ("//d//x//", "file:///d/x/"),
        ("file:////d//x", "file:///d/x"),
        ("FILE:///d/x", "file:///d/x"),
        ("local:///d/x", "file:///d/x"),
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        ("GS://bucket/x/", "gs://bucket/x/"),
    ],
)
def test_spellings_of_one_place_become_one_address(spelling: str, address: str) -> None:
    assert normalize(spelling) == address


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("file:/d/x", "not an absolute path"),
        ("file:d/x", "not an absolute path"),
        ("file://localhost/d/x", "not an absolute path"),
        ("file://conn@/d/x", "not an absolute path"),
        ("s3:/bucket/x", "not an absolute path"),
        ("C:\\images\\", "not an absolute path"),
        ("C:/images/", "not an absolute path"),
        ("/d/a\tb", "control character"),
        ("/d/a\x9bb", "control character"),
        ("/d/a\u2028b", "control character"),
        ("s3://bucket/a\nb", "control character"),
        ("/d/a/../x", '".."'),
        ("s3://bucket/..", '".."'),
        ("s3://bucket/a/./b", 'a part of it is "."'),
        ("s3://bucket/.", 'a part of it is "."'),
        ("abfs://container/a//b", '"//"'),
        ("hdfs://host//a", '"//"'),
        ("s3://bucket/a?versionId=7/x", '"?versionId="'),
        ("abfs://container/a?versionid=7/x", '"?versionId="'),
        ("s3://buck?et/x", "its bucket or host"),
        ("s3://buck#et/x", "its bucket or host"),
        ("s3://one#conn@bucket/x", "its bucket or host"),
        ("s3://one@two@bucket/x", "its bucket or host"),
        ("s3://buck et/x", "its bucket or host"),
        ("s3://$web/x", "its bucket or host"),
        ("abfs://$other/x", "its bucket or host"),
        ("s3://bücket/x", "its bucket or host"),
        ("abfs://container/a\\b", "backslash"),
        ("abfs://container/v1./x", "dot at the end"),
        ("az://container/x.", "dot at the end"),
    ],
)
def test_what_a_store_may_read_as_another_address_is_refused(address: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        normalize(address)


@given(st.text(alphabet="/.a#?% \\é", max_size=12))
def test_a_local_address_is_the_path_that_python_opens(path: str) -> None:
    try:
        address = normalize(f"/d/{path}")
    except ValueError:
        assert ".." in path
        return
    opened = Path(address.removeprefix("file://"))
    assert str(opened) == address.removeprefix("file://").rstrip("/")
    assert opened == Path(f"/d/{path}")


@given(st.text(alphabet="/.a#?%@: \\", max_size=16), st.sampled_from(["/", "file:///", "s3://", "abfs://c/"]))
def test_the_one_form_has_no_other_form(text: str, start: str) -> None:
    try:
        address = normalize(start + text)
    except ValueError:
        return
    assert normalize(address) == address


def test_an_error_shows_no_secret_that_somebody_wrote_before_the_at_sign() -> None:
    with pytest.raises(InputError) as refused:
        address_of("s3://AKIA1:s3cr3t@bucket/../x", field="output_path", allowed="a path")

    assert "s3cr3t" not in str(refused.value)
    assert "output_path is 's3://AKIA1:***@bucket/../x'" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("s3://bucket/a//x.png", 'its folder ends in "//"'),
        ("s3://bucket/a//", 'its folder ends in "//"'),
        ("gs://bucket//x.png", 'its folder ends in "//"'),
        ("abfs://container/a//", 'its folder ends in "//"'),
        ("/d/\u200bx/", "it has U+200B, an invisible character"),
        ("s3://bucket/\ufeffx/", "it has U+FEFF, an invisible character"),
        ("/d/\u202ex/", "it has U+202E, an invisible character"),
    ],
)
def test_what_a_person_would_take_for_another_address_is_refused(given: str, fault: str) -> None:
    with pytest.raises(InputError, match=re.escape(fault)):
        address_of(given, field="output_path", allowed="a path")


@pytest.mark.parametrize(
    "given",
    ["s3://bucket/a//b/", "s3://bucket/", "hdfs:///x", "/\u0645\u06cc\u200c\u062e/x", "s3://b/👨\u200d👩/"],
)
def test_names_with_an_empty_part_in_the_middle_or_with_joined_letters_are_taken(given: str) -> None:
    assert address_of(given, field="output_path", allowed="a path").endswith(given)


def test_white_space_around_what_a_user_gives_is_cut_off_and_within_it_stays() -> None:
    assert address_of(" \n/d /x /\n", field="output_path", allowed="a path") == "file:///d /x /"


def test_the_connection_is_cut_from_the_bucket_only() -> None:
    assert without_connection("s3://conn@bucket/a@b") == "s3://bucket/a@b"
    assert without_connection("s3://bucket/a@b") == "s3://bucket/a@b"
