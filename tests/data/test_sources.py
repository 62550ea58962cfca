"""Lists of videos as they are distributed, and all that can be wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.data import lists, manifest, reader, sources
from harness.data.sources import Request, SourceError, Video, listing

HEADER = "label,youtube_id,time_start,time_end,split\n"


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    folder.mkdir(exist_ok=True)
    return folder


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(kind: str, request: Request) -> str:
    with pytest.raises(SourceError) as caught:
        listing(kind, request)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_ids_are_as_long_as_the_reader_takes():
    assert manifest.ID_BYTES == reader.ID_BYTES


# --- Kinetics ---------------------------------------------------------------------------------------------------------


def test_kinetics_flat_and_in_class_folders(tmp_path):
    videos = put(
        tmp_path / "videos", "abc_000003_000013.mp4", "train/eating cake/-x-_000100_000110.mp4",
        "val/d_000000_000010.webm", "not listed_000000_000010.mp4",
    )  # fmt: skip
    train = table(
        tmp_path / "train.csv",
        "\ufefflabel,youtube_id,time_start,time_end,split,is_cc\r\n"
        '"eating, cake",-x-,100,110,train,0\r\nyoga,abc,3,13,train,1\r\nyoga,gone,3,13,train,1\r\n',
    )
    held = table(tmp_path / "val.csv", HEADER + "yoga,d,0.0,10.0,validate\n,e,0,10,test\n")
    found = listing("kinetics", Request(videos, (train, held)))
    assert found.classes == ("eating, cake", "yoga")
    assert found.videos == (
        Video("-x-_000100_000110", "eating, cake", "train", "train/eating cake/-x-_000100_000110.mp4"),
        Video("abc_000003_000013", "yoga", "train", "abc_000003_000013.mp4"),
        Video("gone_000003_000013", "yoga", "train", "gone_000003_000013.mp4"),
        Video("d_000000_000010", "yoga", "validation", "val/d_000000_000010.webm"),
    )
    assert found.left_out == {"test": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,x,0,10,train\na,x,0,10,train\n", "video 'x_000000_000010' is listed twice"),
        ("a,x,0,10,train\na,x,0,10,val\n", "video 'x_000000_000010' is in two splits"),
        ("a,x,ten,20,train\n", "line 2: time_start is 'ten'; expected whole seconds"),
        ("a,x,0.5,20,train\n", "line 2: time_start is '0.5'; expected whole seconds"),
        ("a,x,0,10,trian\n", "line 2: the split 'trian' is unknown"),
        ("a,x,0,10\n", "line 2: has 4 fields; expected 5"),
        (",x,0,10,train\n", "line 2: video 'x_000000_000010' has no label"),
        ('a,"x,0,10,train\n', "is no CSV"),
        ("a,x,0,10,train\n", "has no video of split validation"),
        ("a,x,0,10,train\nb,y,0,10,test\n", "--test-as-validation takes those of test"),
        ("", "has no video of split train"),
    ],
)
def test_unusable_annotations(tmp_path, rows, message):
    path = table(tmp_path / "a.csv", HEADER + rows)
    assert message in refused("kinetics", Request(put(tmp_path / "v"), (path,)))


def test_a_clip_that_is_there_twice(tmp_path):
    videos = put(tmp_path / "v", "a/x_000000_000010.mp4", "b/x_000000_000010.mp4")
    path = table(tmp_path / "a.csv", HEADER + "a,x,0,10,train\n")
    message = refused("kinetics", Request(videos, (path,)))
    assert "is there twice, as a/x_000000_000010.mp4 and b/x_000000_000010.mp4" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line names the columns ''"),
        (b"label,id\n", "the first line names the columns 'label,id'; expected youtube_id"),
        (HEADER.encode() + b"caf\xe9,x,0,10,train\n", "is no UTF-8; expected UTF-8 text"),
        (HEADER.encode() + b'"' + b"a" * 200_000 + b'",x,0,10,train\n', "is no CSV (field larger than"),
    ],
)
def test_files_that_are_no_list(tmp_path, content, message):
    assert message in refused("kinetics", Request(put(tmp_path / "v"), (table(tmp_path / "a.csv", content),)))
    assert "needs --annotations FILE" in refused("kinetics", Request(tmp_path))
    assert "cannot be read" in refused("kinetics", Request(tmp_path, (tmp_path / "none.csv",)))
    assert "no such folder" in refused("kinetics", Request(tmp_path / "none"))


# --- UCF-101 and HMDB-51 ----------------------------------------------------------------------------------------------


def ucf(tmp_path: Path, train: str, test: str = "Yo/v_Yo_g02_c01.avi\n") -> Request:
    folder = put(tmp_path / "splits")
    table(folder / "classInd.txt", "1 Archery\r\n2 Yo\r\n\r\n")
    table(folder / "trainlist02.txt", train)
    table(folder / "testlist02.txt", test)
    return Request(put(tmp_path / "v"), (folder,), fold=2)


def test_ucf101(tmp_path):
    found = listing("ucf101", ucf(tmp_path, "Yo/v_Yo_g01_c01.avi 2\r\nArchery/v_Archery_g01_c02.avi 1\r\n"))
    assert found.classes == ("Archery", "Yo")
    assert found.videos == (
        Video("v_Archery_g01_c02", "Archery", "train", "Archery/v_Archery_g01_c02.avi"),
        Video("v_Yo_g01_c01", "Yo", "train", "Yo/v_Yo_g01_c01.avi"),
        Video("v_Yo_g02_c01", "Yo", "validation", "Yo/v_Yo_g02_c01.avi"),
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("Yo/a.avi 1\n", "label '1' of 'Yo/a.avi' is not that of classInd.txt"),
        ("Yo/a.avi 0\n", "label '0' of 'Yo/a.avi' is not that"),
        ("Jump/a.avi\n", "has the label 'Jump'; expected one of the 2 classes"),
        ("Yo/v_Yo_g02_c01.avi 2\n", "video 'v_Yo_g02_c01' is in two splits"),
        ("../a.avi 2\n", "leaves the folder"),
    ],
)
def test_unusable_ucf101(tmp_path, train, message):
    assert message in refused("ucf101", ucf(tmp_path, train))


def test_hmdb51(tmp_path):
    folder = put(tmp_path / "splits")
    table(folder / "wave_test_split1.txt", "a.avi 1 \nb.avi 2 \nc.avi 0 \n")
    table(folder / "brush_hair_test_split1.txt", "d.avi 1 \n")
    table(folder / "wave_test_split2.txt", "broken")
    found = listing("hmdb51", Request(put(tmp_path / "v"), (folder,)))
    assert found.classes == ("brush_hair", "wave")
    assert [(v.path, v.split) for v in found.videos] == [
        ("wave/a.avi", "train"), ("brush_hair/d.avi", "train"), ("wave/b.avi", "validation"),
    ]  # fmt: skip
    assert found.left_out == {"unused": 1}
    assert "expected 'video.avi N'" in refused("hmdb51", Request(tmp_path / "v", (folder,), fold=2))
    assert "has no file named NAME_test_split3.txt" in refused("hmdb51", Request(tmp_path / "v", (folder,), fold=3))


# --- Folders and CSV --------------------------------------------------------------------------------------------------


def test_folders(tmp_path):
    videos = put(tmp_path / "v", "train/b/1.mp4", "train/a/sub/1.MP4", "val/a/1.mp4", "val/a/notes.txt", "test/a/9.mp4",
                 "other/x.mp4")  # fmt: skip
    found = listing("folders", Request(videos))
    assert found.classes == ("a", "b")
    assert [(v.media_id, v.label, v.split) for v in found.videos] == [
        ("train/a/sub/1", "a", "train"), ("train/b/1", "b", "train"), ("val/a/1", "a", "validation"),
    ]  # fmt: skip
    assert found.left_out == {"test": 1}
    assert len(listing("folders", Request(videos, test_as_validation=True)).videos) == 4


def test_one_file_in_two_splits(tmp_path):
    videos = put(tmp_path / "v", "train/a/1.mp4", "validation/a/2.mp4")
    os.link(videos / "train/a/1.mp4", videos / "validation/a/3.mp4")
    assert "validation/a/3.mp4 is in two splits: train has the same file" in refused("folders", Request(videos))


def test_folders_that_are_links_are_followed_once(tmp_path):
    put(tmp_path / "disk2", "1.mp4")
    videos = put(tmp_path / "v", "train/a/1.mp4", "validation/a/2.mp4")
    (videos / "train/b").symlink_to(tmp_path / "disk2")
    (videos / "train/a/loop").symlink_to(videos / "train/a")
    assert [v.path for v in listing("folders", Request(videos)).videos] == [
        "train/a/1.mp4", "train/b/1.mp4", "validation/a/2.mp4",
    ]  # fmt: skip


def test_held_out_videos_are_drawn_by_id(tmp_path):
    videos = put(tmp_path / "v", *(f"a/{i}.mp4" for i in range(400)))
    assert "says no split; expected train or validation, or --holdout SHARE" in refused("folders", Request(videos))
    first = {v.media_id: v.split for v in listing("folders", Request(videos, holdout=0.25)).videos}
    held = sum(split == "validation" for split in first.values())
    assert 70 < held < 130  # 100 expected, standard deviation 8.7
    put(videos, *(f"b/{i}.mp4" for i in range(50)))
    later = {v.media_id: v.split for v in listing("folders", Request(videos, holdout=0.25)).videos}
    assert all(later[media_id] == split for media_id, split in first.items())


def test_any_csv(tmp_path):
    videos = put(tmp_path / "v", "ä, b.mp4")
    path = table(tmp_path / "a.csv", 'Split,PATH,label\nval,"ä, b.mp4",größe\ntrain,./c//d.mp4,10\ntrain,e.mp4,9\n')
    found = listing("csv", Request(videos, (path,)))
    assert found.classes == ("10", "9", "größe")
    assert [(v.media_id, v.label, v.path) for v in found.videos] == [
        ("c/d", "10", "c/d.mp4"), ("e", "9", "e.mp4"), ("ä, b", "größe", "ä, b.mp4"),
    ]  # fmt: skip


def test_a_label_map_orders_numbers_names_and_refuses_others(tmp_path):
    names = lists.names(table(tmp_path / "names.txt", "\ufeffzebra\r\nant\r\n"))
    assert names == ("zebra", "ant")
    path = table(tmp_path / "a.csv", "path,label,split\na.mp4,0,train\nb.mp4,ant,val\n")
    found = listing("csv", Request(put(tmp_path / "v"), (path,), names))
    assert [(v.path, v.label) for v in found.videos] == [("a.mp4", "zebra"), ("b.mp4", "ant")]
    path = table(tmp_path / "a.csv", "path,label,split\na.mp4,2,train\nb.mp4,ant,val\n")
    assert "has the label '2'; expected one of the 2 classes" in refused("csv", Request(tmp_path / "v", (path,), names))
    with pytest.raises(SourceError, match="names the class 'a' 2 times"):
        lists.names(table(tmp_path / "names.txt", "a\nb\na\n"))
    with pytest.raises(SourceError, match="is empty"):
        lists.names(table(tmp_path / "names.txt", "\n"))


def test_numbers_are_ordered_by_size(tmp_path):
    path = table(tmp_path / "a.csv", "path,label,split\na.mp4,10,train\nb.mp4,9,val\n")
    assert listing("csv", Request(put(tmp_path / "v"), (path,))).classes == ("9", "10")


@pytest.mark.parametrize(
    "name", ["../secret.mp4", "a/../../secret.mp4", "/etc/passwd", "link.mp4", "out/x.mp4", "", "a\0b"]
)
def test_a_path_that_leaves_its_folder_is_refused(tmp_path, name):
    put(tmp_path, "secret.mp4", "elsewhere/x.mp4")
    videos = put(tmp_path / "v", "ok.mp4")
    (videos / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (videos / "out").symlink_to(tmp_path / "elsewhere")
    path = table(tmp_path / "a.csv", f'path,label,split\nok.mp4,a,train\n"{name}",a,val\n')
    message = refused("csv", Request(videos, (path,)))
    assert "line 3" in message
    assert "the path" in message


def test_a_path_may_be_absolute_or_a_link_inside(tmp_path):
    videos = put(tmp_path / "v", "ok.mp4")
    (videos / "link.mp4").symlink_to("ok2.mp4")
    (videos / "ok2.mp4").write_text("2")
    path = table(tmp_path / "a.csv", f"path,label,split\n{videos}/ok.mp4,a,train\nlink.mp4,a,val\n")
    assert [v.path for v in listing("csv", Request(videos, (path,))).videos] == ["ok.mp4", "link.mp4"]


def test_long_ids_are_cut_and_stay_apart(tmp_path):
    names = [f"{'ü' * 60}{i}" for i in range(3)]
    rows = "".join(f"{name}.mp4,a,{split}\n" for name, split in zip(names, ("train", "train", "val"), strict=True))
    found = listing("csv", Request(put(tmp_path / "v"), (table(tmp_path / "a.csv", "path,label,split\n" + rows),)))
    ids = [video.media_id for video in found.videos]
    assert len(set(ids)) == 3
    assert all(len(media_id.encode()) <= manifest.ID_BYTES for media_id in ids)


def test_names_that_are_no_text_are_refused(tmp_path):
    videos = put(tmp_path / "v", "train/a/1.mp4", "validation/a/2.mp4")
    Path(os.fsdecode(os.fsencode(videos) + b"/train/a/\xff.mp4")).write_text("x")
    assert "is no UTF-8 text; rename it" in refused("folders", Request(videos))


def test_class_names_are_lines(tmp_path):
    path = table(tmp_path / "a.csv", 'path,label,split\na.mp4,"a\nb",train\nb.mp4,c,val\n')
    assert "is no line of UTF-8 text" in refused("csv", Request(put(tmp_path / "v"), (path,)))


def test_the_list_is_sorted_whatever_the_order_of_rows(tmp_path):
    rows = [f"{i}.mp4,a,{'val' if i % 3 else 'train'}\n" for i in range(9)]
    first = table(tmp_path / "a.csv", "path,label,split\n" + "".join(rows))
    second = table(tmp_path / "b.csv", "path,label,split\n" + "".join(reversed(rows)))
    videos = put(tmp_path / "v")
    assert listing("csv", Request(videos, (first,))) == listing("csv", Request(videos, (second,)))
    assert sources.FORMATS.keys() == {"kinetics", "ucf101", "hmdb51", "folders", "csv"}
