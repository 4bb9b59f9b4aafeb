import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from http.client import IncompleteRead
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from PIL import Image

from reimpl import data, fetching
from reimpl.cache import entry_of, evict, files_folder, size, size_of, touch
from reimpl.claims import Source
from reimpl.errors import DataError
from reimpl.keys import declared

REPOSITORY = Path(__file__).parent.parent
PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
LABELS = [0, 1, 2, 0, 1, 2]
README = """---
configs:
- config_name: plain
  data_files:
  - split: train
    path: plain/train-*
  - split: test
    path: plain/test-*
---
"""
TOY = Source(
    name="toy",
    hub="org/toy",
    revision="0123456789abcdef",
    config="plain",
    splits={"train": 6, "test": 2},
    label="label",
    classes=3,
)
MNIST = Source(
    name="mnist",
    hub="ylecun/mnist",
    revision="77f3279092a1c1579b2250db8eafed0ad422088c",
    config="mnist",
    splits={"train": 60_000, "test": 10_000},
    label="label",
    classes=10,
    sha256={
        "train": "c1369991e1d3397c067b26cc71f694990350d5d9e7c923ac3d463ed5eabcfb61",
        "test": "a251781cf547a3289a2e278af89b5da63412bcc213b4cff8328816a64ddd61fb",
    },
)


def png(pixels: np.ndarray) -> dict[str, bytes]:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue()}


def table(images: list, labels: list) -> pa.Table:
    """Columns as the hub writes them: the image feature stands in the schema's metadata."""
    kept = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels, pa.int64()),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    info = json.dumps({"info": {"features": features}})
    return kept.replace_schema_metadata({"huggingface": info})


def lay_out(mirror: Path, train: pa.Table, test: pa.Table, hub: str = "org/toy") -> None:
    folder = mirror / hub / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "README.md").write_text(README)
    pq.write_table(train, folder / "train-00000-of-00001.parquet")
    pq.write_table(test, folder / "test-00000-of-00001.parquet")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REIMPL_CACHE_GB", raising=False)
    monkeypatch.delenv("REIMPL_DATA_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path, cache, monkeypatch):
    images = [png(image) for image in PIXELS]
    lay_out(tmp_path / "mirror", table(images, LABELS), table(images[:2], LABELS[:2]))
    monkeypatch.setenv("REIMPL_DATA_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def no_network(monkeypatch):
    """A hub on a port that nothing listens on."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def toy_of(mirror: Path, *, rows: int = 4, **columns: pa.Array) -> Source:
    """A dataset of the given columns, the same in both splits."""
    kept = pa.table(columns)
    lay_out(mirror, kept, kept)
    return replace(TOY, splits={"train": rows, "test": rows}, label=None, classes=None)


def train_of(source: Source) -> data.Columns:
    return data.load({"toy": source})["toy"]["train"]


def refusal(source: Source) -> str:
    with pytest.raises(DataError) as caught:
        _ = data.load({"toy": source})["toy"]["train"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_png_images_become_the_uint8_pixels_they_were_made_of(mirror):
    images = train_of(TOY)["image"]
    assert isinstance(images, torch.Tensor)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), PIXELS)


def test_whole_numbers_become_int64(mirror):
    labels = train_of(TOY)["label"]
    assert isinstance(labels, torch.Tensor)
    assert (labels.dtype, labels.tolist()) == (torch.int64, LABELS)


def test_images_are_all_in_colour_where_one_is(mirror):
    colour = np.full((4, 3, 3), 7, dtype=np.uint8)
    lay_out(mirror, table([png(PIXELS[1]), png(colour)], [0, 1]), table([png(colour)], [0]))
    images = train_of(replace(TOY, splits={"train": 2, "test": 1}, classes=2))["image"]
    assert isinstance(images, torch.Tensor)
    assert images.shape == (2, 4, 3, 3)
    assert np.array_equal(images[0, :, :, 2].numpy(), PIXELS[1])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([0.5, 1, 2, 3]), torch.tensor([0.5, 1, 2, 3])),
        (pa.array([True, False, True, True]), torch.tensor([1, 0, 1, 1])),
        (
            pa.array([[1, 2], [3, 4], [5, 6], [7, 8]]),
            torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]),
        ),
        (pa.array(["a", "ü", None, "d"]), ["a", "ü", "", "d"]),
        (pa.array([[1], [2, 3], [], [4]]), [[1], [2, 3], [], [4]]),
    ],
    ids=["floats", "truth values", "vectors", "text", "ragged lists"],
)
def test_other_columns_keep_their_values(mirror, column, expected):
    found = train_of(toy_of(mirror, value=column))["value"]
    if isinstance(expected, list):
        assert found == expected
    else:
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_a_gap_among_whole_numbers_is_nan(mirror):
    found = train_of(toy_of(mirror, value=pa.array([1, None, 3, 4])))["value"]
    assert isinstance(found, torch.Tensor)
    assert (found.dtype, found.isnan().tolist()) == (torch.float32, [False, True, False, False])


def test_a_column_named_like_a_path_is_kept(mirror):
    column = {"education/num": pa.array([1, 2, 3, 4])}
    found = train_of(toy_of(mirror, **column))["education/num"]
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == [1, 2, 3, 4]


def test_nothing_is_read_before_it_is_asked_for(cache):
    loaded = data.load({"toy": TOY})
    assert isinstance(loaded, Mapping)
    assert list(loaded) == ["toy"]
    assert not cache.exists()


def test_changing_a_tensor_leaves_the_cache_as_it_is(mirror):
    images = train_of(TOY)["image"]
    assert isinstance(images, torch.Tensor)
    images.fill_(0)
    assert np.array_equal(train_of(TOY)["image"], PIXELS)


def test_a_second_load_needs_neither_the_mirror_nor_the_library(mirror):
    assert len(train_of(TOY)["label"]) == 6
    again = (
        "import sys; from tests.test_data import TOY; before = set(sys.modules)\n"
        "from reimpl import data\n"
        "print(data.load({'toy': TOY})['toy']['train']['image'].sum().item())\n"
        "print('datasets' in sys.modules)"
    )
    environment = {**os.environ, "REIMPL_DATA_MIRROR": "/nowhere", "PYTHONPATH": str(REPOSITORY)}
    out = subprocess.run(
        [sys.executable, "-c", again], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [str(PIXELS.sum()), "False"], out.stderr


def test_the_module_itself_imports_no_heavy_library():
    look = (
        "import sys, reimpl.data; print(sorted({'torch', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", look], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_two_processes_that_decode_at_once_get_the_same(mirror, cache):
    work = (
        "from tests.test_data import TOY; from reimpl import data\n"
        "print(data.load({'toy': TOY})['toy']['train']['image'].sum().item())"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    running = [
        subprocess.Popen([sys.executable, "-c", work], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [int(process.communicate()[0]) for process in running] == [PIXELS.sum()] * 2
    assert [path.name for path in (cache / "decoded").glob("*") if path.name[0] != "."] == [
        entry_of(TOY).name
    ]


READ_ALL = """
import pickle, re, sys
from pathlib import Path
from reimpl import data

source = pickle.loads(bytes.fromhex(sys.argv[1]))
features = data.load({"toy": source})["toy"]["train"]["feature"]
total = float(features.sum())
print("read", flush=True)
sys.stdin.readline()  # until the other has read it, too
maps = Path("/proc/self/smaps").read_text()
mine = re.findall(r"feature\\.npy\\n(?:.*\\n)*?Rss: +(\\d+) kB\\n(?:.*\\n)*?Pss: +(\\d+) kB", maps)
print(sum(int(rss) for rss, _ in mine), sum(int(pss) for _, pss in mine), total, flush=True)
sys.stdin.readline()  # until the other was looked at, too
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of shared pages")
def test_all_processes_of_a_machine_share_one_copy_in_memory(mirror, cache):
    feature = pa.array(np.arange(500_000, dtype=np.float32))
    source = toy_of(mirror, rows=500_000, feature=feature)
    _ = data.load({"toy": source})["toy"]  # decoded once
    command = [sys.executable, "-c", READ_ALL, pickle.dumps(source).hex()]
    both = [
        subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = []
    for word in ("read", "look"):  # both have read it before the first one looks
        for process in both:
            assert process.stdin is not None
            assert process.stdout is not None
            if word == "look":
                process.stdin.write("look\n")
                process.stdin.flush()
            said.append(process.stdout.readline().split())
    for process in both:
        process.communicate("end\n")
    assert said[:2] == [["read"], ["read"]]
    resident = [int(rss) for rss, _, _ in said[2:]]
    share = [int(pss) for _, pss, _ in said[2:]]
    size = 500_000 * 4 / 1024
    assert all(rss > 0.95 * size for rss in resident)  # each sees the whole of it
    assert sum(share) < 1.1 * size  # and together they hold it once


def test_only_decoded_columns_remain_after_decoding(mirror, cache):
    train_of(TOY)
    kept = {file.name for file in cache.rglob("*") if file.is_file()}
    assert kept - {f".{entry_of(TOY).name}.lock"} == {"meta.json", "image.npy", "label.npy"}


def test_what_a_killed_process_left_is_swept_away(mirror, cache):
    entry = entry_of(TOY)
    left = entry.with_name(f".{entry.name}.partial")
    (left / "train").mkdir(parents=True)
    assert len(train_of(TOY)["label"]) == 6
    assert not left.exists()


def test_a_truncated_cache_file_is_decoded_again(mirror):
    train_of(TOY)
    file = entry_of(TOY) / "train" / "image.npy"
    file.write_bytes(file.read_bytes()[:-5])
    assert np.array_equal(train_of(TOY)["image"], PIXELS)


@pytest.mark.parametrize("content", ["", "[]", '{"splits": {"train": {}}}'])
def test_a_damaged_index_of_the_cache_is_decoded_again(mirror, content):
    train_of(TOY)
    (entry_of(TOY) / "meta.json").write_text(content)
    assert np.array_equal(train_of(TOY)["image"], PIXELS)


def test_the_least_recently_used_dataset_goes_when_the_cache_is_full(mirror, monkeypatch):
    first, second, third = (replace(TOY, revision=name) for name in ("first", "second", "third"))
    for age, source in enumerate((first, second)):
        train_of(source)
        moment = time.time() - 100 + age
        os.utime(entry_of(source) / "meta.json", (moment, moment))
    train_of(first)  # used again, so the second is now the oldest
    monkeypatch.setenv("REIMPL_CACHE_GB", str(2.5 * size_of(entry_of(first)) / 1e9))
    train_of(third)
    assert [entry_of(source).exists() for source in (first, second, third)] == [
        True,
        False,
        True,
    ]


def test_files_that_a_paper_reads_itself_are_within_the_bound_too(mirror, cache, monkeypatch):
    fetched = cache / "files" / ("f" * 32)
    fetched.mkdir(parents=True)
    (fetched / "graph.bin").write_bytes(bytes(100_000))
    touch(fetched)
    train_of(TOY)
    decoded = size_of(entry_of(TOY))
    assert size() == 100_000 + decoded
    monkeypatch.setenv("REIMPL_CACHE_GB", str((decoded + 1) / 1e9))
    evict(keep=entry_of(TOY))
    assert (fetched.exists(), size()) == (False, decoded)


def test_the_dataset_in_use_stays_even_when_it_alone_is_too_large(mirror, monkeypatch):
    monkeypatch.setenv("REIMPL_CACHE_GB", "0")
    assert len(train_of(TOY)["label"]) == 6
    assert size() == size_of(entry_of(TOY)) > 0


def test_the_bound_of_the_cache_must_be_a_number(mirror, monkeypatch):
    monkeypatch.setenv("REIMPL_CACHE_GB", "lots")
    assert "REIMPL_CACHE_GB must be a number of gigabytes, is 'lots'" in refusal(TOY)


def test_without_data_and_network_the_error_names_three_ways(cache, no_network):
    started = time.perf_counter()
    said = refusal(TOY)
    assert time.perf_counter() - started < 5
    for way in ("REIMPL_DATA_MIRROR", "run once with a network", str(entry_of(TOY))):
        assert way in said


def test_the_offline_switch_of_the_hub_is_obeyed_without_asking(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(fetching, "urlopen", lambda *_, **__: pytest.fail("asked the hub"))
    assert "hub cannot be reached" in refusal(TOY)


@pytest.mark.parametrize("kind", ["OfflineModeIsEnabled", "DatasetNotFoundError", "ReadTimeout"])
def test_what_the_libraries_raise_becomes_a_data_error(cache, monkeypatch, kind):
    import datasets
    import httpx
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import OfflineModeIsEnabled

    errors = (OfflineModeIsEnabled, DatasetNotFoundError, httpx.ReadTimeout)
    error = next(error for error in errors if error.__name__ == kind)

    def fail(*_, **__):
        raise error("the hub\nsays no")

    monkeypatch.setattr(fetching, "_hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "org/toy" in refusal(TOY)


def test_the_hub_is_asked_for_the_pinned_revision(cache, monkeypatch):
    import datasets

    asked = {}

    def load_dataset(path, config, *, revision, **_):
        asked.update(path=path, config=config, revision=revision)
        return {
            split: datasets.Dataset.from_dict({"label": LABELS[:rows]})
            for split, rows in TOY.splits.items()
        }

    monkeypatch.setattr(fetching, "_hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    train_of(replace(TOY, classes=None))
    assert asked == {"path": TOY.hub, "config": TOY.config, "revision": TOY.revision}


def test_a_mirror_without_the_dataset_is_named(mirror):
    said = refusal(replace(TOY, hub="org/other"))
    assert f"the mirror has no folder {mirror / 'org' / 'other'}" in said


def test_a_mirror_whose_split_has_no_file_is_refused(mirror):
    (mirror / "org/toy/plain/test-00000-of-00001.parquet").unlink()
    said = refusal(TOY)
    assert "cannot be read" in said
    assert "all must be there" in said


def test_a_split_that_the_mirror_does_not_know_is_named(mirror):
    said = refusal(replace(TOY, splits={"train": 6, "tests": 2}))
    assert "has no split 'tests'. Did you mean 'test'?" in said


def test_an_unknown_config_is_refused(mirror):
    assert "'plyn' not found" in refusal(replace(TOY, config="plyn"))


def test_a_split_with_fewer_rows_is_refused_with_both_numbers(mirror):
    said = refusal(replace(TOY, splits={"train": 7, "test": 2}))
    assert "rows of split 'train': expected 7, found 6" in said


def test_another_number_of_classes_is_refused(mirror):
    assert "distinct values of 'label': expected 4, found 3" in refusal(replace(TOY, classes=4))


def test_an_unknown_label_column_is_named(mirror):
    assert "no column 'labels'. Did you mean 'label'?" in refusal(replace(TOY, label="labels"))


def test_an_altered_split_is_refused_by_its_checksum(mirror):
    sums = {facts.split: facts.sha256 for facts in data.verify({"toy": TOY})}
    altered = [png(image) for image in (PIXELS ^ 1)]
    lay_out(mirror, table(altered, LABELS), table(altered[:2], LABELS[:2]))
    said = refusal(replace(TOY, sha256=sums))
    assert f"checksum of split 'train': expected {sums['train']}, found " in said


def test_the_right_checksums_are_accepted(mirror):
    sums = {facts.split: facts.sha256 for facts in data.verify({"toy": TOY})}
    assert len(train_of(replace(TOY, sha256=sums))["label"]) == 6


def test_a_checksum_that_changes_in_the_claims_is_not_answered_from_the_cache(mirror):
    train_of(TOY)
    assert "checksum of split 'train'" in refusal(replace(TOY, sha256={"train": "0" * 64}))


def test_a_refused_dataset_leaves_nothing_in_the_cache(mirror, cache):
    refusal(replace(TOY, classes=4))
    assert [file.suffix for file in cache.rglob("*") if file.is_file()] == [".lock"]


def test_a_damaged_image_is_named_by_its_row(mirror):
    whole = png(PIXELS[0])["bytes"]
    images = [{"bytes": whole}, {"bytes": whole[:40]}]
    lay_out(mirror, table(images, [0, 1]), table(images[:1], [0]))
    said = refusal(replace(TOY, splits={"train": 2, "test": 1}, classes=2))
    assert "column 'image': image 1 cannot be decoded" in said


def test_images_of_two_sizes_are_refused(mirror):
    images = [png(PIXELS[0]), png(PIXELS[0].T.copy())]
    lay_out(mirror, table(images, [0, 1]), table(images[:1], [0]))
    said = refusal(replace(TOY, splits={"train": 2, "test": 1}, classes=2))
    assert "image 1 is (3, 4), image 0 is (4, 3)" in said


def test_a_column_of_bytes_is_refused(mirror):
    said = refusal(toy_of(mirror, value=pa.array([b"a", b"b", b"c", b"d"])))
    assert "column 'value' is neither images, numbers, text nor lists" in said


def test_a_cache_that_cannot_be_written_is_named(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path / "file" / "cache"))
    assert "set REIMPL_CACHE to a folder that can" in refusal(TOY)


def test_an_unknown_dataset_name_gets_the_near_one(cache):
    with pytest.raises(DataError, match=r"unknown dataset 'tooy'\. Did you mean 'toy'\?"):
        _ = data.load({"toy": TOY})["tooy"]


def test_missing_is_none_for_what_the_mirror_or_the_cache_has(mirror, monkeypatch):
    assert data.missing(TOY) is None
    train_of(TOY)
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    assert data.missing(TOY) is None


def test_missing_says_what_a_fetch_would_need(cache):
    assert "needs a network" in str(data.missing(TOY))


def test_missing_says_which_folder_the_mirror_lacks(mirror):
    assert "org/other" in str(data.missing(replace(TOY, hub="org/other")))


def test_verify_finds_a_changed_byte_and_decodes_again(mirror):
    before = data.verify({"toy": TOY})
    file = entry_of(TOY) / "train" / "image.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert data.verify({"toy": TOY}) == before
    assert np.array_equal(train_of(TOY)["image"], PIXELS)


def test_verify_tells_the_rows_of_each_split(mirror):
    facts = data.verify({"toy": TOY})
    assert [(f.name, f.split, f.rows, f.declared) for f in facts] == [
        ("toy", "train", 6, False),
        ("toy", "test", 2, False),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"b": torch.tensor([1, 2])},
        {"a": torch.tensor([2, 1])},
        {"a": torch.tensor([[1, 2]])},
        {"a": torch.tensor([1, 2], dtype=torch.int32)},
        {"a": [1, 2]},
        {"a": torch.tensor([1, 2]), "b": torch.tensor([])},
    ],
    ids=["name", "values", "shape", "type", "list", "another column"],
)
def test_the_fingerprint_sees_every_change(changed):
    assert data.fingerprint(changed) != data.fingerprint({"a": torch.tensor([1, 2])})


def test_the_fingerprint_does_not_see_the_order_of_columns():
    a, b = torch.tensor([1]), ["x"]
    assert data.fingerprint({"a": a, "b": b}) == data.fingerprint({"b": b, "a": a})


@pytest.mark.parametrize(
    "change", [{"revision": "f"}, {"splits": {"train": 6}}, {"sha256": {"train": "0"}}]
)
def test_what_is_declared_enters_the_hash(change):
    assert declared({"toy": TOY}) != declared({"toy": replace(TOY, **change)})


@pytest.mark.data
def test_mnist_is_what_the_paper_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path))
    images = data.load({"mnist": MNIST})["mnist"]["train"]["image"]
    assert isinstance(images, torch.Tensor)
    assert images.shape == (60_000, 28, 28)
    half_digit = 255 * 0.00005  # of the mean 0.1307 that is printed everywhere
    assert images.float().mean().item() == pytest.approx(255 * 0.1307, abs=half_digit)


# Files that the paper reads itself


@pytest.fixture
def filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Two files in a mirror."""
    folder = tmp_path / "mirror" / "org" / "filed" / "data"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("one")
    (folder / "two.txt").write_text("two")
    monkeypatch.setenv("REIMPL_DATA_MIRROR", str(tmp_path / "mirror"))
    return Source(
        name="filed",
        hub="org/filed",
        revision="abc",
        url=f"file://{tmp_path}/mirror/org/filed/{{file}}",
        files={f"data/{name}.txt": sha256(name.encode()).hexdigest() for name in ("one", "two")},
    )


def test_files_are_read_where_the_mirror_has_them(filed: Source, tmp_path: Path) -> None:
    found = data.load({"filed": filed})["filed"]["files"]["data/one.txt"]
    assert found == tmp_path / "mirror" / "org" / "filed" / "data" / "one.txt"
    assert [(f.split, f.declared) for f in data.verify({"filed": filed})] == [
        ("data/one.txt", True),
        ("data/two.txt", True),
    ]


def test_a_file_that_was_changed_is_not_handed_out(filed: Source, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "org" / "filed" / "data" / "two.txt").write_text("2")
    with pytest.raises(DataError, match=r"checksum of 'data/two.txt': expected"):
        _ = data.load({"filed": filed})["filed"]


def test_a_file_that_is_not_in_the_mirror_is_named(filed: Source, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "org" / "filed" / "data" / "two.txt").unlink()
    with pytest.raises(DataError, match=r"no file .*two.txt"):
        _ = data.load({"filed": filed})["filed"]


def test_files_are_fetched_once_without_a_mirror(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    assert "not in the cache" in (data.missing(filed) or "")
    first = data.load({"filed": filed})["filed"]["files"]["data/one.txt"]
    (tmp_path / "mirror" / "org" / "filed" / "data" / "one.txt").unlink()  # whence it was fetched
    assert data.load({"filed": filed})["filed"]["files"]["data/one.txt"] == first
    assert data.missing(filed) is None
    assert first.read_text() == "one"


def test_files_that_cannot_be_fetched_say_what_to_do(
    filed: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    gone = replace(filed, url="file:///nowhere/{file}")
    with pytest.raises(DataError, match=r"file:///nowhere/… cannot be read .*REIMPL_DATA_MIRROR"):
        _ = data.load({"filed": gone})["filed"]
    with pytest.raises(DataError, match="names no 'url'"):
        _ = data.load({"filed": replace(filed, url=None)})["filed"]


def test_a_wrong_file_is_not_kept_and_the_right_one_is_fetched_next_time(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    there = tmp_path / "mirror" / "org" / "filed" / "data" / "two.txt"
    there.write_text("tw")
    with pytest.raises(DataError, match=r"checksum of 'data/two.txt': .* in file://.*two\.txt; "):
        _ = data.load({"filed": filed})["filed"]
    assert "not in the cache" in (data.missing(filed) or "")
    there.write_text("two")
    assert data.load({"filed": filed})["filed"]["files"]["data/two.txt"].read_text() == "two"


def test_a_cached_file_that_was_damaged_is_fetched_again(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    first = data.load({"filed": filed})["filed"]["files"]["data/one.txt"]
    first.write_text("on")
    assert data.load({"filed": filed})["filed"]["files"]["data/one.txt"] == first
    assert first.read_text() == "one"


def test_an_answer_that_is_cut_off_is_one_line(
    filed: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BytesIO):
        def read(self, *_: object) -> bytes:
            raise IncompleteRead(b"o", 2)

    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    monkeypatch.setattr(fetching, "urlopen", lambda *_, **__: Cut())
    with pytest.raises(DataError, match=r"cannot be read \(IncompleteRead\(1 bytes read"):
        _ = data.load({"filed": filed})["filed"]


def test_files_that_another_process_is_fetching_are_waited_for(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR")
    filed = replace(filed, url="file:///nowhere/{file}")
    folder = files_folder(filed)
    folder.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as threads:
        with FileLock(folder.parent / f".{folder.name}.lock"):
            asked = threads.submit(lambda: data.load({"filed": filed})["filed"]["files"])
            time.sleep(0.2)
            assert not asked.done()
            shutil.copytree(tmp_path / "mirror" / "org" / "filed", folder)
        assert asked.result()["data/one.txt"].read_text() == "one"


# To a machine that has neither cache nor mirror


def sent(source: Source, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack here, and be the other machine from now on."""
    packed = data.pack(source)
    for content in packed.values():
        content.setflags(write=False)  # as it comes out of shared memory
    monkeypatch.setenv("REIMPL_DATA_MIRROR", "")
    monkeypatch.setenv("REIMPL_CACHE", str(elsewhere))
    assert not data.packed_is_here(source)
    data.unpack(source, packed)
    assert data.packed_is_here(source)


def test_tensors_arrive_as_they_were_and_may_be_written_to(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = data.load({"toy": TOY})["toy"]
    images = {split: before[split]["image"].clone() for split in before}
    sent(TOY, tmp_path / "elsewhere", monkeypatch)
    after = data.load({"toy": TOY})["toy"]
    assert [split for split in after if not after[split]["image"].equal(images[split])] == []
    after["train"]["image"].zero_()
    again = data.load({"toy": TOY})["toy"]
    assert again["train"]["image"].equal(images["train"])


def test_files_arrive_as_they_were(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(filed, tmp_path / "elsewhere", monkeypatch)
    found = data.load({"filed": filed})["filed"]["files"]["data/one.txt"]
    assert found.read_text() == "one"
    assert found.is_relative_to(tmp_path / "elsewhere")


def test_a_cache_that_cannot_take_what_arrives_is_named(
    filed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = data.pack(filed)
    monkeypatch.setenv("REIMPL_DATA_MIRROR", "")
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path / "mirror" / "org" / "filed" / "data/one.txt"))
    with pytest.raises(DataError, match="set REIMPL_CACHE to a folder that can"):
        data.unpack(filed, packed)
