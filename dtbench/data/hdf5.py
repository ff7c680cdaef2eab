"""HDF5 files from outside: sizes are checked before they are read, links are not followed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from dtbench.data.memory import free_memory
from dtbench.errors import InvalidDataset, one_line

Array = NDArray[Any]
HDF5_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError)  # of h5py, for damaged files
INTACT = "It is damaged or cut short: put an intact copy in its place."
LONGEST_TEXT = 1_000_000  # bytes

_MOST_PACKED = 1100  # to one: DEFLATE reaches at most 1032
_UNWRITTEN = 2**26  # bytes that may be left at their fill value, as flags that are all False


def numeric_column(path: Path, file: Any, key: str) -> Any:
    """Return the unread array of a key, e.g. infos/qpos; raise InvalidDataset unless it holds numbers."""
    if file.get(key, getlink=True) is None:
        raise InvalidDataset(
            f"{path}: no key {key!r}. It holds: {one_line(', '.join(sorted(file)), 200) or 'nothing'}."
        )
    found = own_value(path, file, key)
    if not isinstance(found, h5py.Dataset):
        raise InvalidDataset(f"{path}: {key!r} is a group of {len(found)} entries, not an array.")
    if found.dtype.kind not in "biuf":
        raise InvalidDataset(f"{path}: {key!r} holds {found.dtype}, not numbers.")
    if not found.shape:
        raise InvalidDataset(f"{path}: {key!r} is one value, not an array with a row for each step.")
    if found.nbytes > found.id.get_storage_size() * _MOST_PACKED + _UNWRITTEN:
        held = found.id.get_storage_size()
        raise InvalidDataset(f"{path}: {key!r} declares {found.nbytes} bytes and holds {held}. {INTACT}")
    return found


def own_value(path: Path, file: Any, key: str) -> Any:
    """Return the item of a key; links are refused, as they may lead to any file."""
    item = file
    for part in key.split("/"):
        if not isinstance(item, h5py.Group) or item.get(part, getlink=True) is None:
            raise InvalidDataset(f"{path}: no key {key!r}.")
        if isinstance(item.get(part, getlink=True), h5py.ExternalLink | h5py.SoftLink):
            raise InvalidDataset(f"{path}: {key!r} is a link. Put the array itself into the file.")
        item = item[part]
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise InvalidDataset(f"{path}: {key!r} lies in other files. Put the array itself into the file.")
    return item


def read_column(path: Path, file: Any, key: str) -> Array:
    """Return the numbers of a key; raise InvalidDataset where there are none or memory does not suffice."""
    column = numeric_column(path, file, key)
    check_room(path, [column])
    values: Array = column[()]
    return values


def check_contents(path: Path, together: Sequence[str] = ()) -> None:
    """Raise InvalidDataset where a file has links, or arrays that declare more than they hold or than fits memory.

    The arrays whose path ends with one of the names `together` must fit at once, others each for itself.
    """
    try:
        with h5py.File(path, "r") as file:
            columns = list(_arrays(path, file))
    except HDF5_ERRORS as error:
        raise InvalidDataset(f"{path}: {one_line(str(error) or type(error).__name__, 200)}. {INTACT}") from error
    at_once = [nbytes for name, nbytes in columns if name.rpartition("/")[2] in together]
    needed, free = max([sum(at_once), *(nbytes for _, nbytes in columns)]), free_memory()
    if needed > free:
        raise InvalidDataset(f"{path} needs {needed} bytes of memory, and {free} are free. Use a larger machine.")


def _arrays(path: Path, file: Any, group: str = "") -> Iterator[tuple[str, int]]:
    """Yield the name and the declared bytes of every array below a group of the file."""
    for key in file[group] if group else file:
        name = f"{group}/{key}" if group else key
        item = own_value(path, file, name)
        if isinstance(item, h5py.Group):
            yield from _arrays(path, file, name)
        elif not isinstance(item, h5py.Dataset) or item.shape is None:
            continue  # a type, or nothing
        elif item.nbytes > item.id.get_storage_size() * _MOST_PACKED + _UNWRITTEN:
            raise InvalidDataset(f"{path}: {name!r} declares {item.nbytes} bytes, more than it can hold. {INTACT}")
        else:
            yield name, item.nbytes


def check_room(path: Path, columns: Sequence[Any]) -> None:
    """Raise InvalidDataset for columns that do not fit into memory, with a converted copy of the largest."""
    sizes = [column.nbytes for column in columns]
    needed, free = sum(sizes) + max(sizes, default=0), free_memory()
    if needed > free:
        raise InvalidDataset(f"{path} needs {needed} bytes of memory, and {free} are free. Use a larger machine.")


def text_of(path: Path, file: Any, key: str) -> str:
    """Return the one text of a key; raise InvalidDataset, before it is read, for anything else or a long one."""
    item = own_value(path, file, key)
    if not isinstance(item, h5py.Dataset) or item.shape != () or h5py.check_string_dtype(item.dtype) is None:
        raise InvalidDataset(f"{path}: {key!r} is not one text.")
    length = h5py.check_string_dtype(item.dtype).length  # None: as long as it is, which the file's size bounds
    if (length or 0) > LONGEST_TEXT:
        raise InvalidDataset(f"{path}: {key!r} declares a text of {length} bytes, more than {LONGEST_TEXT}.")
    return str(item.asstr()[()])
