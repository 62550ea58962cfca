"""Files at an address are used as files at a path are: each does what pathlib does with the same folder."""

import os
import sys
import types

import pytest

from harness.system import files, paths
from harness.system.paths import Address
from tests.support import local_gfile


@pytest.fixture(params=["path", "address", "address without TensorFlow"])
def place(request, tmp_path, monkeypatch):
    if request.param.endswith("TensorFlow"):
        monkeypatch.setattr(paths, "_gfile", lambda: local_gfile)
    return tmp_path / "a [b]*" if request.param == "path" else paths.path_of(f"file://{tmp_path}/a [b]*")


def names(found):
    return sorted(path.name for path in found)


def error_of(what):
    with pytest.raises(OSError) as error:
        what()
    return type(error.value)


def test_a_text_is_a_path_or_an_address():
    assert paths.path_of("gs://lab//table2/") == Address("gs://lab/table2")
    assert str(paths.path_of("file:///tmp/x/")) == "file:///tmp/x"
    assert str(paths.path_of("results/runs")) == "results/runs"


@pytest.mark.parametrize(
    ("text", "parent", "name"),
    [
        ("gs://lab/a/ckpt-3", "gs://lab/a", "ckpt-3"),
        ("gs://lab/a", "gs://lab", "a"),
        ("gs://lab", "gs://lab", "lab"),
        ("file:///a", "file:///a", "a"),
    ],
)
def test_an_address_has_a_folder_and_a_name(text, parent, name):
    assert (str(Address(text).parent), Address(text).name) == (parent, name)
    assert str(Address(text) / "b" / "c") == f"{text}/b/c"
    assert str(Address("gs://lab/a/ckpt-3").with_suffix(".index")) == "gs://lab/a/ckpt-3.index"


def test_nothing_is_there(place):
    assert not (place.exists() or place.is_dir() or place.is_file())
    assert list(place.glob("*")) == []
    assert error_of((place / "x").read_bytes) is FileNotFoundError
    assert error_of((place / "x").read_text) is FileNotFoundError
    assert error_of((place / "x").stat) is FileNotFoundError
    assert error_of((place / "x").unlink) is FileNotFoundError
    (place / "x").unlink(missing_ok=True)
    files.remove_tree(place)


def test_what_is_written_is_found_read_and_removed(place):
    path = place / "run" / "attempts" / "3" / "record.json"
    assert files.replace(path, b"\xff1") == path
    files.replace(path, b"22")
    assert path.read_bytes() == b"22"
    assert path.read_text() == "22"
    assert (path.is_file(), path.is_dir(), path.exists(), path.stat().st_size) == (True, False, True, 2)
    assert (path.parent.is_file(), path.parent.is_dir(), path.parent.exists()) == (False, True, True)
    assert names(place.glob("*")) == ["run"]
    assert names(place.glob("*/attempts/*")) == ["3"]
    assert names(path.parent.glob("*")) == ["record.json"], "no half of it is left"
    assert list(path.parent.glob("x-*.json")) == []
    assert error_of(path.parent.rmdir) is OSError
    path.unlink()
    path.parent.rmdir()
    assert not path.parent.exists()
    (place / "run" / "marker").touch()
    (place / "run" / "marker").touch()
    assert (place / "run" / "marker").read_bytes() == b""
    files.remove_tree(place / "run")
    assert not (place / "run").exists()


def test_a_file_is_created_where_none_is(place):
    files.create(place / "one", b"1")
    with pytest.raises(FileExistsError):
        files.create(place / "one", b"2")
    assert (place / "one").read_bytes() == b"1"
    assert names(place.glob("*")) == ["one"]


def test_lines_are_added_to_what_is_there(place):
    for text in "ab":
        lines = files.AppendedFile(place / "log")
        lines.write(f"{text}\n")
        lines.publish()
        lines.write("end\n")
        lines.publish()
        lines.close()
    assert (place / "log").read_text() == "a\nend\nb\nend\n"


@pytest.mark.parametrize("without", [False, True])
def test_what_fails_leaves_no_half_and_names_the_address(tmp_path, monkeypatch, without):
    if without:
        monkeypatch.setattr(paths, "_gfile", lambda: local_gfile)
    place = paths.path_of(f"file://{tmp_path}/a")
    (place / "folder" / "x").write_text("")
    with pytest.raises(OSError, match="irectory") as error:
        (place / "folder").write_text("there is a folder of the name")
    assert error.value.filename == f"{place}/folder"
    assert names(place.glob("*")) == ["folder"]
    with pytest.raises(OSError, match="not implemented") as error:
        paths.path_of("s3://lab/x").exists()
    assert error.value.filename == "s3://lab/x"


def test_loading_tensorflow_for_files_leaves_the_tpu_to_the_process_that_trains(monkeypatch):
    seen = []

    def load(name):
        seen.append(os.environ["TPU_LOAD_LIBRARY"])
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(io=types.SimpleNamespace(gfile="files")))

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv("TPU_LOAD_LIBRARY", raising=False)
    monkeypatch.setattr(paths, "importlib", types.SimpleNamespace(import_module=load))
    assert paths._gfile() == paths._gfile() == "files"
    assert seen == ["0"]
    assert "TPU_LOAD_LIBRARY" not in os.environ
