"""An image whose pixels are converted where they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LazyImage:
    """An RGB image, uint8 (H, W, 3), of which a tracker reads parts.

    ``image[y1:y2, x1:x2]`` converts this part, ``np.asarray(image)`` the whole image, once. When
    parts that make up half of the image have been converted, the next one converts all.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(
        self,
        image_hw: tuple[int, int],
        convert: Callable[[int, int, int, int], NDArray[np.uint8]],
    ) -> None:
        """``convert`` returns the pixels (y2 - y1, x2 - x1, 3) of x1, y1, x2, y2."""
        self.shape = (*image_hw, 3)
        self._convert = convert
        self._whole: NDArray[np.uint8] | None = None
        self._pixels_read = 0

    @property
    def size(self) -> int:
        """Number of values, as of an array."""
        return self.shape[0] * self.shape[1] * 3

    def __getitem__(self, part: Any) -> NDArray[np.uint8]:
        slices = isinstance(part, tuple) and all(isinstance(each, slice) for each in part)
        if self._whole is not None or not slices or len(part) != 2:
            return np.asarray(self)[part]
        (y1, y2, rows), (x1, x2, columns) = (
            each.indices(side) for each, side in zip(part, self.shape, strict=False)
        )
        self._pixels_read += max(0, y2 - y1) * max(0, x2 - x1)
        some = rows == columns == 1 and y1 < y2 and x1 < x2
        if not some or 2 * self._pixels_read > self.shape[0] * self.shape[1]:
            return np.asarray(self)[part]
        return self._convert(x1, y1, x2, y2)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        if self._whole is None:
            height, width, _ = self.shape
            self._whole = self._convert(0, 0, width, height)
        return np.array(self._whole, dtype, copy=copy) if copy else self._whole


AnyImage = NDArray[np.uint8] | LazyImage
"""RGB uint8 (H, W, 3), converted already or where it is read."""
