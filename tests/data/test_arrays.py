"""Arrays, lists of arrays and folders of pictures at the door: what they are taken for, and what is refused."""

import numpy as np
import pytest
import torch

import graphssl
from graphssl import Items, UserError
from graphssl.data import items_of, read_folder, to_dataset
from graphssl.data.given import read_labels
from graphssl.pretrained import fingerprint
from graphssl.tokens.skeletons import MSR

RNG = np.random.default_rng(0)
FLOATS = RNG.random((6, 5, 40, 40)).astype(np.float32)


def images(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


KINDS = {
    "images": (images(6, 3, 8, 12), "images", (3, 8, 12), torch.uint8),
    "float images": (FLOATS[:, :1], "images", (1, 40, 40), torch.float32),
    "a tensor": (torch.from_numpy(FLOATS[:, :4]), "images", (4, 40, 40), torch.float32),
    "doubles": (FLOATS[:, :1].astype(float), "images", (1, 40, 40), torch.float32),
    "halves": (torch.from_numpy(FLOATS[:, :1]).bfloat16(), "images", (1, 40, 40), torch.float32),
    "videos": (images(2, 5, 1, 8, 8), "videos", (5, 1, 8, 8), torch.uint8),
    "points": (FLOATS[:, 0, :, :3], "points", (40, 3), torch.float32),
    "points with normals": (FLOATS[:, 0, :, :6], "points", (40, 6), torch.float32),
    "whole points": (RNG.integers(-9, 9, (4, 20, 3)), "points", (20, 3), torch.float32),
    "a list of images": ([images(3, 8, 8), images(3, 8, 8)], "images", (3, 8, 8), torch.uint8),
    "images of several sizes": ([images(3, 8, 8), images(3, 12, 8)], "images", (3, None, 8), torch.uint8),
    "videos of several lengths": ([images(4, 1, 8, 8), images(6, 1, 8, 8)], "videos", (None, 1, 8, 8), torch.uint8),
    "clouds of several sizes": ([FLOATS[0, 0, :, :3], FLOATS[0, 1, :30, :3]], "points", (None, 3), torch.float32),
    "sequences": ([FLOATS[0, :, :17, :3], FLOATS[1, :4, :17, :3]], "skeletons", (None, 17, 3), torch.float32),
    "paths": ([FLOATS[0, 0, :20, None, :2]] * 3, "skeletons", (20, 1, 2), torch.float32),
    "named skeletons": (Items("skeletons", FLOATS[:, :, :20, :3]), "skeletons", (5, 20, 3), torch.float32),
    "named images": (Items("images", images(2, 13, 8, 8)), "images", (13, 8, 8), torch.uint8),
    "voxels": (Items("voxels", RNG.random((2, 6, 6, 6)) < 0.5), "voxels", (6, 6, 6), torch.uint8),
    "read-only": (np.broadcast_to(FLOATS[:, :1], FLOATS[:, :1].shape), "images", (1, 40, 40), torch.float32),
    "reversed": (images(6, 3, 8, 8)[:, ::-1, ::-1], "images", (3, 8, 8), torch.uint8),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:no bones given")
@pytest.mark.parametrize("case", KINDS)
def test_what_is_taken_for_what(case):
    given, kind, shape, dtype = KINDS[case]
    dataset = to_dataset(given)
    assert (dataset.items.kind, dataset.items.shape, dataset.items.values[0].dtype) == (kind, shape, dtype)
    raw = given.values if isinstance(given, Items) else given
    assert len(dataset.items) == len(dataset.graphs) == len(raw)
    first = raw[0] if isinstance(raw, torch.Tensor) else torch.from_numpy(raw[0].copy())
    taken = dataset.items.values[0]
    scale = 255 if first.dtype == torch.bool else 1
    assert torch.equal(taken.double(), first.double() * scale) or case == "doubles"
    assert torch.allclose(taken.double(), first.double() * scale)
    assert dataset.graphs[0].num_nodes > 1
    assert (dataset.task, dataset.y, dataset.splits) == ("graph", None, {})


REFUSED = {
    "grey images": (images(9, 28, 28), ["(9, 28, 28)", "array[:, None]", "Items('points', array)"]),
    "small grey images": (FLOATS[:, 0, :8, :8], ["array[:, None]"]),
    "channels last": (images(9, 32, 32, 3), ["channels last", "transpose(0, 3, 1, 2)", "Items('skeletons', array)"]),
    "skeletons": (FLOATS[:, :, :20, :3], ["skeletons", "Items('skeletons', array)"]),
    "grey videos": (images(9, 8, 16, 16), ["8 channels", "array[:, :, None]"]),
    "voxels": (images(9, 8, 8, 8), ["Items('voxels', array)"]),
    "videos, channels last": (images(2, 5, 8, 8, 3), ["channels last", "transpose(0, 1, 4, 2, 3)"]),
    "time after channels": (images(2, 3, 16, 8, 8), ["transpose(0, 2, 1, 3, 4)", "array[:, 0]"]),
    "voxels with a channel": (images(2, 1, 8, 8, 8), ["Items('voxels', ...)"]),
    "six axes": (np.zeros((1,) * 6), ["(1, 1, 1, 1, 1, 1)", "no graph"]),
    "features alone": (FLOATS[:, 0, 0], ["adjacency", "images [B, C, H, W]"]),
    "nan": (np.where(np.arange(40) == 7, np.nan, FLOATS[:, :1]), ["NaN", "[0, 0, 0, 7]", "nan_to_num"]),
    "infinite": ([FLOATS[0, :1], FLOATS[1, :1] + np.inf], ["item 1 of the images", "infinite"]),
    "beyond float32": (FLOATS[:, :1].astype(float) * 1e39, ["beyond float32"]),
    "none": (images(0, 3, 8, 8), ["(0, 3, 8, 8)", "empty"]),
    "an empty axis": (images(2, 3, 8, 0), ["(2, 3, 8, 0)", "empty"]),
    "objects": (np.array([[1], [1, 2]], dtype=object), ["objects", "list"]),
    "text": (np.full((2, 3, 8, 8), "a"), ["<U1", "numbers"]),
    "complex": (torch.zeros(2, 1, 8, 8, dtype=torch.complex64), ["complex", "real and imaginary"]),
    "complex in a list": ([np.zeros((1, 8, 8), complex)], ["item 0", "complex"]),
    "sparse": (torch.zeros(2, 1, 8, 8).to_sparse(), ["sparse", "to_dense()"]),
    "wide integers": (images(2, 1, 8, 8).astype(int), ["int64", "astype('uint8')", "floats"]),
    "bytes and floats": ([images(1, 8, 8), FLOATS[0, :1]], ["item 0", "item 1", "as bytes, or all as floats"]),
    "channels last in a list": ([images(9, 12, 3), images(12, 9, 3)], ["(9, 12, 3)", "[C, H, W]", "Items('images'"]),
    "square sequences": ([FLOATS[0, :, :5, :3]], ["(5, 5, 3)", "skeletons [T, J, d]", "Items('images', list)"]),
    "joints that differ": ([FLOATS[0, :, :5, :3], FLOATS[0, :, :6, :3]], ["skeletons", "one J"]),
    "grey in a list": ([images(28, 28)], ["(28, 28)", "array[None]"]),
    "axes in a list": ([images(1, 8, 8), images(8, 8)], ["item 1 has shape (8, 8)", "(1, 8, 8)"]),
    "a graph in a list": ([images(1, 8, 8), None], ["item 1 is a NoneType", "arrays"]),
    "an unknown kind": (Items("image", FLOATS), ["'image'", "did you mean 'images'"]),
    "named, too few axes": (Items("images", images(9, 28, 28)), ["[B, C, H, W]", "array[:, None]"]),
    "named, flat points": (Items("points", FLOATS[:, 0, :, :2]), ["(6, 40, 2)", "[B, P, 3 (+C)]"]),
    "named, a bad item": (Items("voxels", [FLOATS[0], FLOATS[0, 0]]), ["item 1 of the voxels", "[D, H, W]"]),
    "labels": ((images(6, 1, 8, 8), [0, 1]), ["(2,)", "6 items"]),
    "some labels": ([(images(1, 8, 8), 1), (images(1, 8, 8), None)], ["item 0 has a label", "item 1 has none"]),
    "pairs of arrays": ([(images(1, 8, 8), images(8, 8))], ["pairs of arrays", "(8, 8)", "give a .npz file"]),
    "dense adjacency": ((FLOATS[0, 0, :5, :3], np.eye(5)), ["tuple of numpy.ndarray", "adjacency"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_mistake_and_the_way_out(case):
    given, words = REFUSED[case]
    with pytest.raises(UserError) as caught:
        to_dataset(given)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_ways_out_lead_out():
    assert to_dataset(images(9, 28, 28)[:, None]).items.kind == "images"
    assert to_dataset(images(9, 32, 32, 3).transpose(0, 3, 1, 2)).items.shape == (3, 32, 32)
    assert to_dataset(images(9, 8, 16, 16)[:, :, None]).items.kind == "videos"
    assert to_dataset(images(2, 5, 8, 8, 3).transpose(0, 1, 4, 2, 3)).items.shape == (5, 3, 8, 8)
    assert to_dataset(images(2, 3, 16, 8, 8).transpose(0, 2, 1, 3, 4)).items.shape == (16, 3, 8, 8)
    assert to_dataset(Items("voxels", images(2, 1, 8, 8, 8)[:, 0])).items.shape == (8, 8, 8)


def test_booleans_and_wide_zeros_and_ones_are_black_and_white():
    full = FLOATS[:, :1] > 0.5
    for given in (full, full.astype(int), full.astype(np.int8), torch.from_numpy(full), [full[0], full[1].astype(int)]):
        assert to_dataset(given).items.values.unique().tolist() == [0, 255]
    assert to_dataset(np.zeros((2, 1, 8, 8), int)).items.values.unique().tolist() == [0]


def test_bytes_are_what_they_are_however_dark():
    full = (FLOATS[:, :1] > 0.5).astype(np.uint8)
    assert np.array_equal(to_dataset(full).items.values, full)
    one = to_dataset([full[0], images(1, 40, 40)]).items.values
    assert np.array_equal(one[0], full[0])
    assert to_dataset([full[0] > 0, full[1]]).items.values.flatten(1).max(1).values.tolist() == [255, 1]


def test_skeletons_keep_their_name_and_are_warned_about_without():
    given = FLOATS[:, :, :20, :3]
    dataset = to_dataset(Items("skeletons", given, skeleton="msr-action3d"))
    assert dataset.tokenizer.bones == MSR.bones
    assert to_dataset((Items("skeletons", list(given), skeleton=((0, 1),)), [0, 1] * 3)).tokenizer.bones == ((0, 1),)
    with pytest.warns(
        UserWarning, match="joints are joined through time only; name a skeleton.*'skeletons'.*kinect-v1"
    ):
        to_dataset(list(given[:, :, :19]))
    to_dataset([given[0, :, :1]] * 3)  # a path has no bones
    with pytest.raises(UserError, match="images have none; leave it out"):
        to_dataset(Items("images", given, skeleton="kinect-v1"))


def test_items_are_copies():
    given = images(6, 3, 8, 8)
    dataset = to_dataset(given)
    before = dataset.items.values.clone()
    given[:] = 0
    assert torch.equal(dataset.items.values, before)
    tensor = torch.rand(2, 1, 8, 8, requires_grad=True)
    assert not to_dataset(tensor).items.values.requires_grad


def test_labels_come_along():
    given, y = images(40, 1, 8, 8), [i % 2 + 1 for i in range(40)]
    for data in ((given, y), (given, np.array(y)), (Items("images", given), y), (list(given), torch.tensor(y)),
                 list(zip(given, y, strict=True))):  # fmt: skip
        dataset = to_dataset(data)
        assert dataset.y.tolist() == [i % 2 for i in range(40)]
        assert dataset.classes == ("1", "2")
        (name,) = dataset.splits
        assert name == "random-8:1:1"
        assert "graph-linear" in dataset.protocols
    assert to_dataset((given, None)).y is None
    assert to_dataset((given, RNG.random(40))).y.is_floating_point()
    two = to_dataset((images(3, 8, 8), images(3, 8, 8)))  # two images, not an image with labels
    assert (len(two.items), two.y) == (2, None)


def test_torch_data_sets_of_pictures_are_read_once():
    picture = pytest.importorskip("PIL.Image")
    pixels = images(12, 8, 10, 3)
    read = []

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, i):
            read.append(i)
            return picture.fromarray(pixels[i]), i % 3

    dataset = to_dataset(Pictures())
    assert sorted(read) == list(range(12))
    assert np.array_equal(dataset.items.values, pixels.transpose(0, 3, 1, 2))
    assert dataset.y.tolist() == [i % 3 for i in range(12)]


def test_fingerprints_tell_values_and_kinds_apart():
    given = RNG.random((4, 5, 6, 7)).astype(np.float32)
    mark = fingerprint(to_dataset(Items("images", given)))
    assert mark == fingerprint(to_dataset(Items("images", list(torch.from_numpy(given)))))
    assert mark == fingerprint(to_dataset((Items("images", given), [0, 1, 0, 1])))  # labels are no part of it
    other = given.copy()
    other[3, 4, 5, 6] += 1
    reshaped = given.reshape(4, 5, 7, 6)
    marks = [fingerprint(to_dataset(Items(*one))) for one in (
        ("images", other), ("images", reshaped), ("voxels", given), ("skeletons", given, [(0, 1)]),
    )]  # fmt: skip
    assert len({mark, *marks}) == 5


def fields(**changes):
    return {"images": images(12, 3, 8, 8), "y": np.arange(12) % 2, **changes}


def read(tmp_path, arrays):
    np.savez(tmp_path / "My_Set.npz", **arrays)
    return to_dataset(tmp_path / "My_Set.npz")


def test_files_of_items(tmp_path):
    split = {"train_idx": [0, 1], "val_idx": [2], "test_idx": [3, 4]}
    dataset = read(tmp_path, fields(**split, names=[f"{i}.png" for i in range(12)]))
    assert (dataset.name, dataset.items.kind, list(dataset.splits)) == ("my-set", "images", ["given"])
    assert [part.tolist() for part in (dataset.splits["given"][0].train, dataset.splits["given"][0].val)] == [
        [0, 1],
        [2],
    ]
    assert dataset.item_names[3] == "3.png"
    assert list(read(tmp_path, fields()).splits) == ["random-8:1:1"]
    assert read(tmp_path, {"videos": images(2, 4, 1, 8, 8)}).items.kind == "videos"
    assert read(tmp_path, {"voxels": images(2, 8, 8, 8)}).items.kind == "voxels"
    for full in (images(2, 8, 8, 8) % 2, images(2, 8, 8, 8) > 128):
        assert np.array_equal(read(tmp_path, {"voxels": full}).items.values, full * np.uint8(255))
    assert read(tmp_path, {"points": FLOATS[:, 0, :, :3]}).items.shape == (40, 3)
    ragged = read(tmp_path, {"points": FLOATS[0, 0, :, :3], "point_ptr": [0, 17, 40]})
    assert [len(value) for value in ragged.items.values] == [17, 23]
    frames = {"frames": FLOATS[0, :, :20, :3].repeat(4, 0), "frame_ptr": [0, 6, 20], "bones": [[0, 1], [1, 19]]}
    moving = read(tmp_path, frames)
    assert moving.items.shape == (None, 20, 3)
    assert moving.tokenizer.bones == ((0, 1), (1, 19))


BAD_FILES = {
    "two kinds": (fields(points=FLOATS[:, 0, :, :3]), ["images and points", "one kind a file"]),
    "grey": (fields(images=images(12, 8, 8)), ["(12, 8, 8)", "array[:, None]"]),
    "pointer": ({"frames": FLOATS[0, :, :20, :3], "frame_ptr": [0, 3, 9]}, ["frame_ptr", "0 to 5"]),
    "pointer that stands": ({"frames": FLOATS[0, :, :20, :3], "frame_ptr": [0, 5, 5]}, ["by 1 or more"]),
    "bones of images": (fields(bones=[[0, 1]]), ["bones", "beside frames"]),
    "bones": ({"frames": FLOATS[:, :, :20, :3], "bones": [[0, 20]]}, ["bones names joints 0 to 20", "0 to 19"]),
    "labels": (fields(y=[0, 1]), ["(2,)", "12 items"]),
    "split": (fields(train_idx=[0], val_idx=[1], test_idx=[12]), ["test_idx lists item 12", "0 to 11"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_refused(case, tmp_path):
    arrays, words = BAD_FILES[case]
    with pytest.raises(UserError) as caught:
        read(tmp_path, arrays)
    for word in ("My_Set.npz", *words):
        assert word in str(caught.value)


# folders


def save(path, pixels, **more):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of three images each."""
    pytest.importorskip("PIL")
    for i in range(3):
        for name in ("cat", "dog"):
            save(tmp_path / "My_Pets" / name / f"{i}.png", images(8, 10, 3))
    return tmp_path / "My_Pets"


def test_a_folder_of_classes(pictures):
    from PIL import Image

    (pictures / ".hidden").mkdir()
    (pictures / ".hidden" / "x.png").write_bytes(b"")
    (pictures / "cat" / "notes.txt").write_text("no image")
    dataset = to_dataset(str(pictures))
    assert (dataset.name, dataset.items.kind, dataset.items.shape) == ("my-pets", "images", (3, 8, 10))
    assert dataset.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.classes == ("cat", "dog")
    assert dataset.item_names[4] == "dog/1.png"
    assert np.array_equal(
        dataset.items.values[4], np.asarray(Image.open(pictures / "dog" / "1.png")).transpose(2, 0, 1)
    )
    small = read_folder(pictures, size=(4, 6), mode="L")
    assert small.items.shape == (1, 4, 6)
    run = graphssl.pretrain(str(pictures), "mae", epochs=1, patch=2, progress=False)
    assert run.embed().shape[0] == 6


def test_a_folder_without_classes_and_one_with_parts(pictures, tmp_path):
    alone = to_dataset(pictures / "cat")
    assert (len(alone.items), alone.y) == (3, None)
    for part, count in (("train", 20), ("test", 4)):
        for i in range(count):
            save(tmp_path / "parts" / part / "ab"[i % 2] / f"{i}.png", images(8, 8))
    dataset = read_folder(tmp_path / "parts")
    (split,) = dataset.splits["given"]
    assert (len(split.train), len(split.val), len(split.test)) == (18, 2, 4)
    assert dataset.y[split.val].tolist() == [0, 1]
    assert all(dataset.item_names[i].startswith("test") for i in split.test)
    save(tmp_path / "parts" / "valid" / "a" / "0.png", images(8, 8))
    (split,) = read_folder(tmp_path / "parts").splits["given"]
    assert (len(split.train), len(split.val), len(split.test)) == (20, 1, 4)


def test_pictures_that_differ_or_cannot_be_read(pictures):
    def refused(*words, **settings):
        with pytest.raises(UserError) as caught:
            read_folder(pictures, **settings)
        for word in words:
            assert word in str(caught.value)

    refused("size is 0", size=0)
    refused("mode is 'HSV'", "RGB", mode="HSV")
    refused("frames is for videos", frames=3)
    odd = pictures / "dog" / "9.png"
    save(odd, images(12, 10, 3))
    refused("9.png has 12 x 10 pixels", "8 x 10", "size=32")
    assert read_folder(pictures, size=8).items.shape == (3, 8, 8)
    save(odd, images(8, 10))
    refused("9.png has 1 channels", "mode='RGB'")
    assert read_folder(pictures, mode="RGB").items.shape == (3, 8, 10)
    save(odd, images(8, 10).astype(np.uint16) * 256)
    refused("9.png", "I;16", "8 bits", mode="L")
    odd.write_text("no image")
    refused("cannot read", "9.png")
    save(pictures / "top.png", images(8, 10, 3))
    odd.unlink()
    refused("top.png lies in no folder of a class")
    (pictures / "top.png").unlink()
    (pictures / "cat" / "x.mp4").write_bytes(b"")
    refused("images and videos", "one kind")
    with pytest.raises(UserError, match="no folder"):
        read_folder(pictures / "absent")


def test_pictures_are_turned_as_they_say(tmp_path):
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    save(tmp_path / "turned.png", np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, exif=exif)
    assert read_folder(tmp_path).items.values.tolist() == [[[[120, 0], [160, 40], [200, 80]]]]


def test_a_folder_of_videos(tmp_path):
    av = pytest.importorskip("av")
    clip = np.zeros((6, 16, 16, 3), np.uint8)
    for t in range(6):
        clip[t] = 40 * t  # each frame is one grey
    for name, length in (("a/0.avi", 6), ("b/1.avi", 6), ("b/2.avi", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("ffv1", rate=5)  # without loss
            stream.width = stream.height = 16
            stream.pix_fmt = "bgr0"
            for frame in clip[:length]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
            container.mux(stream.encode())
    with pytest.raises(UserError, match=r"2.avi has 4 frames, but .*0.avi has 6.*frames=4"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match=r"2.avi has 4 frames, fewer than frames=5"):
        read_folder(tmp_path, frames=5)
    dataset = read_folder(tmp_path, frames=2, size=8, mode="L")
    assert (dataset.items.kind, dataset.items.shape, dataset.y.tolist()) == ("videos", (2, 1, 8, 8), [0, 1, 1])
    assert dataset.items.values[0, :, 0, 0, 0].tolist() == [0, 200]
    (tmp_path / "b" / "2.avi").unlink()
    whole = to_dataset(tmp_path)
    assert np.array_equal(whole.items.values[1], clip.transpose(0, 3, 1, 2))
    (tmp_path / "b" / "2.avi").write_text("no video")
    with pytest.raises(UserError, match=r"cannot read .*2.avi as a video"):
        read_folder(tmp_path)


def test_a_name_with_a_folder_of_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("PIL")
    (tmp_path / "digits").mkdir()
    assert not graphssl.data.is_path("digits")
    save(tmp_path / "digits" / "0.png", images(8, 8))
    assert graphssl.data.is_path("digits")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        to_dataset("elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images and no videos"):
        to_dataset(tmp_path / "empty")


def test_kinds_named_in_a_call():
    assert items_of(images(2, 8, 8, 8), "voxels").kind == "voxels"
    assert read_labels(["b", "a"], 2, "items")[1] == ("a", "b")
