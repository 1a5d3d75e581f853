"""Reader of ALOHA's own episodes, `episode_{i}.hdf5`, as the original, ALOHA 2 and Mobile ALOHA recorders write them.

    /observations/{qpos,qvel,effort}, /action        (T, 14) float32, in contract order and units
    /observations/images/{camera}                    (T, H, W, 3) uint8 RGB, or with attribute `compress` (T, L) JPEG
                                                     bytes, zero-padded to one length; other recorders write (T,) byte
                                                     strings or arrays of varying length, and leave the attribute out
    /compress_len                                    (cameras, T) lengths of those JPEGs, not needed here
    /base_action                                     (T, 2) Mobile only: linear m/s, angular rad/s

Colour trap: the recorders hand RGB arrays to an encoder that takes them for BGR, so the JPEGs hold red and blue
exchanged. Decoded the same careless way the mistake undoes itself; a viewer shows blue skin. Files that others made may
be either, so the channel order is never guessed.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.data.hdf5_links import refuse_links
from aloha_runtime.data.video import Image
from aloha_runtime.errors import DatasetError
from aloha_runtime.jpeg import jpeg_size
from aloha_runtime.robot import DOF

ChannelOrder = Literal["swapped", "rgb"]
"""What is inside compressed frames: "swapped" as ALOHA's recorders write them, or "rgb", which other programs show in
true colours."""

VECTORS = {
    "observation.state": "observations/qpos",
    "observation.velocity": "observations/qvel",
    "observation.effort": "observations/effort",
    "action": "action",
}
"""LeRobot's names of the recorded vectors. Velocity and effort are missing in some recordings."""
REQUIRED = ("observation.state", "action")
IMAGES = "observations/images"
BASE_ACTION = "base_action"
MOST_PIXELS = 4096 * 3072
"""Of a camera's picture: 36 MB decoded. Recorders of these arms write 640x480."""
BASE_NAMES = ("base_linear", "base_angular")


def episode_files(folder: Path) -> list[Path]:
    """`episode_0.hdf5`, `episode_1.hdf5`, ... in the order of their numbers; DatasetError when there are none."""
    numbered = [(re.fullmatch(r"episode_(\d+)\.hdf5", path.name), path) for path in folder.glob("episode_*.hdf5")]
    found = sorted((int(match[1]), path) for match, path in numbered if match)
    if not found:
        raise DatasetError(f"{folder} holds no episode_0.hdf5, episode_1.hdf5, ... Name the folder that holds them.")
    return [path for _, path in found]


class Hdf5Episode:
    """One file opened for reading. `vectors` are by LeRobot's names, (T, D) float32; `cameras` name to (height, width).

    Opening raises DatasetError, naming the file and the dataset inside, for a file that is damaged or not ALOHA's.
    """

    def __init__(self, path: Path, channel_order: ChannelOrder | None = None, leave_out: Collection[str] = ()) -> None:
        """`leave_out`: names inside the file, in full or their last part, that are not looked at."""
        self.path = path
        self._order = channel_order
        self._leave_out = set(leave_out)
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise DatasetError(f"{path} is missing. Check the path.") from None
        except OSError as error:
            raise DatasetError(f"{path} cannot be opened as HDF5 ({error}). It is cut off or no HDF5.") from None
        try:
            refuse_links(path, self._file)
            self.vectors = {
                name: self._vector(inside, DOF)
                for name, inside in VECTORS.items()
                if name in REQUIRED or (inside in self._file and not self._left_out(inside))
            }
            self.length = len(self.vectors["action"])
            has_base = BASE_ACTION in self._file and not self._left_out(BASE_ACTION)
            self.base_action = self._vector(BASE_ACTION, 2) if has_base else None
            self._check_lengths()
            self._images = self._image_datasets()
            self.cameras = {name: self._size(name) for name in self._images}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def frames(self, camera: str) -> Iterator[Image]:
        """Every frame of a camera in order, (H, W, 3) uint8 RGB, read one by one."""
        for step in range(self.length):
            yield self.frame(camera, step)

    def frame(self, camera: str, step: int) -> Image:
        """One frame, (H, W, 3) uint8 RGB."""
        if is_colour(self._images[camera]):
            return np.asarray(self._read(self._images[camera], step), dtype=np.uint8)
        if self._order is None:
            raise DatasetError(
                f"{self.path}: observations/images/{camera} is compressed, and a JPEG does not say whether it was"
                " encoded from RGB or from BGR. Say --channels swapped for files of ALOHA's own recorders, --channels"
                " rgb for files whose JPEGs look right in a viewer."
            )
        decoded = self._decoded(camera, step)
        return decoded if self._order == "swapped" else np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)

    def _decoded(self, camera: str, step: int) -> Image:
        """A JPEG as OpenCV decodes it, for BGR. The zeros behind it do no harm, so `compress_len` is not needed."""
        data = self._read(self._images[camera], step)
        if data.dtype != np.uint8:
            data = np.frombuffer(bytes(data.item()), np.uint8)
        size, inside = jpeg_size(data.tobytes()), f"{IMAGES}/{camera}"
        if size is not None and size[0] * size[1] > MOST_PIXELS:
            raise DatasetError(f"{self.path}: {inside}, frame {step} is {size[1]}x{size[0]}, no camera's size.")
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if size is not None else None
        if decoded is None:
            raise DatasetError(f"{self.path}: {inside}, frame {step} is no JPEG. The file is damaged; leave it out.")
        return np.asarray(decoded, dtype=np.uint8)

    def _read(self, dataset: h5py.Dataset, part: Any) -> NDArray[Any]:
        try:
            return np.asarray(dataset[part])
        except (OSError, RuntimeError) as error:
            raise DatasetError(
                f"{self.path}: {dataset.name[1:]}: {error}. The file is damaged; leave it out."
            ) from None

    def _vector(self, inside: str, size: int) -> NDArray[np.float32]:
        found = self._file.get(inside)
        if not isinstance(found, h5py.Dataset):
            known = ", ".join(sorted(self._file)) or "nothing"
            raise DatasetError(f"{self.path} is no ALOHA episode: {inside} is missing (at the top: {known}).")
        if found.ndim != 2 or found.shape[1] != size or found.dtype.kind != "f":
            raise DatasetError(
                f"{self.path}: {inside} is {found.dtype} of shape {found.shape}; it must be floats, (T, {size})."
            )
        values = self._read(found, ...).astype(np.float32)
        if not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DatasetError(f"{self.path}: {inside} is not finite in frame {step}. Leave the file out.")
        return values

    def _check_lengths(self) -> None:
        lengths = {VECTORS[name]: len(values) for name, values in self.vectors.items()}
        if self.base_action is not None:
            lengths[BASE_ACTION] = len(self.base_action)
        if not self.length or len(set(lengths.values())) > 1:
            told = ", ".join(f"{inside} {length}" for inside, length in lengths.items())
            raise DatasetError(f"{self.path}: frames differ in number or there are none ({told}). Leave the file out.")

    def _left_out(self, inside: str) -> bool:
        """Whether the caller named it, in full or by its last part."""
        return bool(
            self._leave_out & {inside, inside.rpartition("/")[2], *(n for n, i in VECTORS.items() if i == inside)}
        )

    def _image_datasets(self) -> dict[str, h5py.Dataset]:
        group = self._file.get("observations/images", {})
        found = {name: each for name, each in group.items() if not self._left_out(f"{IMAGES}/{name}")}
        for name, images in found.items():
            inside = f"{IMAGES}/{name}"
            if not isinstance(images, h5py.Dataset) or (not is_colour(images) and not is_encoded(images)):
                what = f"{images.dtype} of shape {images.shape}" if isinstance(images, h5py.Dataset) else "a group"
                others = [other for other in found if other != name]
                way_on = f"; import without it: --leave-out {inside}" if others else ""
                raise DatasetError(
                    f"{self.path}: {inside} is {what}; it must be uint8 of shape (T, height, width, 3), or JPEGs as"
                    f" bytes of any form{way_on}."
                )
            if len(images) != self.length:
                raise DatasetError(f"{self.path}: {inside} has {len(images)} frames, action has {self.length}.")
        return found

    def _size(self, camera: str) -> tuple[int, int]:
        found = self._images[camera]
        size = found.shape[1:] if is_colour(found) else self._decoded(camera, 0).shape
        return int(size[0]), int(size[1])

    @property
    def not_taken(self) -> list[str]:
        """What else the file holds, each with its kind: it has no place here, or was left out by name."""
        taken = {VECTORS[name] for name in self.vectors} | {f"{IMAGES}/{name}" for name in self._images}
        taken |= {"compress_len"} | ({BASE_ACTION} if self.base_action is not None else set())
        found: list[str] = []

        def note(name: str, each: h5py.Dataset | h5py.Group) -> None:
            if isinstance(each, h5py.Dataset) and name not in taken:
                kind = "text" if h5py.check_string_dtype(each.dtype) else str(each.dtype)
                found.append(f"{name} ({kind}{' ' + 'x'.join(map(str, each.shape)) if each.shape else ''})")

        self._file.visititems(note)
        return found


def is_colour(images: h5py.Dataset) -> bool:
    """Plain pictures, (T, H, W, 3) uint8."""
    return bool(images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8)


def is_encoded(images: h5py.Dataset) -> bool:
    """Picture files in any of the forms that recorders write: padded rows of bytes, byte strings, arrays that vary in
    length."""
    if images.ndim == 2:
        return bool(images.dtype == np.uint8)
    is_bytes = h5py.check_vlen_dtype(images.dtype) == np.uint8 or h5py.check_string_dtype(images.dtype) is not None
    return images.ndim == 1 and (is_bytes or images.dtype.kind in "SV")
