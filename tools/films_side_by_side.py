"""Join films of `dtbench play` into one GIF, each below its title; one that has ended fades.

dtbench play KEY --target 1000 --target 2000 --target 3600 --gif hopper.gif
python tools/films_side_by_side.py docs/images/hopper.gif "hopper-1000.gif=asked for 1000" "hopper-2000.gif=..."
"""

import sys
from itertools import islice

from PIL import Image, ImageDraw, ImageFont, ImageSequence

SIZE, GAP, BAR = 200, 4, 22  # pixels: of a film's side, between films, of the titles
EVERY, COLOURS = 2, 48  # frames that are kept, and colours of all


def main() -> None:
    """Read FILE=TITLE for each film and write the joined one."""
    target, *pairs = sys.argv[1:]
    films, titles = zip(
        *((frames(path), title) for path, _, title in (pair.partition("=") for pair in pairs)), strict=True
    )
    pictures = [picture(films, titles, index) for index in range(max(map(len, films)))]
    palette = pictures[0].quantize(COLOURS)
    first, *others = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures)
    first.save(target, save_all=True, append_images=others, duration=80, loop=0, optimize=True, disposal=1)


def frames(path: str) -> list[Image.Image]:
    """Return every second frame of a film, scaled."""
    with Image.open(path) as film:
        kept = islice(ImageSequence.Iterator(film), None, None, EVERY)
        return [frame.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS) for frame in kept]


def picture(films: tuple[list[Image.Image], ...], titles: tuple[str, ...], index: int) -> Image.Image:
    """Return the films' frames of this index side by side."""
    whole = Image.new("RGB", (len(films) * (SIZE + GAP) - GAP, BAR + SIZE), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for place, (film, title) in enumerate(zip(films, titles, strict=True)):
        frame = film[min(index, len(film) - 1)]
        if index >= len(film):
            frame = Image.blend(frame, Image.new("RGB", frame.size, "white"), 0.55)
        whole.paste(frame, (place * (SIZE + GAP), BAR))
        draw.text((place * (SIZE + GAP) + 6, 3), title, fill="black", font=font)
    return whole


if __name__ == "__main__":
    main()
