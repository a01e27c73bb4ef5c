"""Boxes of a slide through a library that reads one box at a time: a handle a thread, since handles are not shared."""

from collections.abc import Callable
from queue import Empty, SimpleQueue

import numpy as np
from jaxtyping import Int64, UInt8

from wsi_lmc.passing import may_pass
from wsi_lmc.slide.reader import Boxes, Done, Reader, ReadError, ignore
from wsi_lmc.threads import Pending, Threads
from wsi_lmc.units import LevelSize, SlidePoint


class HandlePool:
    """As many handles of one slide file as threads ever read at a time, opened when they are first needed."""

    def __init__(self, first: Reader, reopen: Callable[[], Reader]) -> None:
        self._reopen = reopen
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self._idle.put(first)
        self._background = first.background

    def begin_boxes(
        self,
        level: int,
        origins: Int64[np.ndarray, "n 2"],
        out: UInt8[np.ndarray, "n h w 3"],
        threads: Threads,
        done: Done = ignore,
    ) -> Pending[Boxes]:
        """Begin to fill ``out`` with boxes of a level; their top-left corners are ``origins`` (x, y, level-0 pixels).

        What is transparent or cannot be decoded becomes background. OpenSlide refuses every read after an error, so
        a handle that failed is replaced.

        Raises:
            ReadError: because of an error of the system that may pass: whoever opens the slide again may be luckier.
        """
        boxes = Boxes(np.zeros(len(out), np.bool_), np.zeros(len(out), np.bool_))
        size = LevelSize(out.shape[2], out.shape[1])

        def serve(part: range) -> None:
            handle = self._take()
            try:
                for row in part:
                    x, y = (int(value) for value in origins[row])
                    try:
                        rgba = handle.read(SlidePoint(x, y), level, size)
                    except ReadError as error:
                        handle = self._replace(handle)
                        if may_pass(error):
                            raise
                        out[row] = self._background
                        boxes.unreadable[row] = True
                    else:
                        boxes.transparent[row] = flatten(rgba, self._background, out[row])
                    done(row, bool(boxes.unreadable[row]))
            finally:
                self._idle.put(handle)

        return threads.begin(serve, len(out)).then(lambda _: boxes)

    def close(self) -> None:
        """Close every handle; none may be in use."""
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _take(self) -> Reader:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._reopen()

    def _replace(self, handle: Reader) -> Reader:
        handle.close()
        return self._reopen()


def flatten(
    rgba: UInt8[np.ndarray, "h w 4"], background: tuple[int, int, int], out: UInt8[np.ndarray, "h w 3"]
) -> bool:
    """Write RGBA into ``out`` as RGB on a background colour; returns whether any of it was transparent.

    ``rgba`` is straight, not premultiplied; merely dropping alpha would make glass black.
    """
    alpha = rgba[..., 3]
    if alpha.min() == 255:
        out[...] = rgba[..., :3]
        return False
    share = alpha[..., None].astype(np.float32) / 255.0
    mixed = rgba[..., :3] * share + np.asarray(background, np.float32) * (1.0 - share)
    out[...] = np.rint(mixed)
    return True
