"""Pixels in flight: large images wait for each other, and nothing waits for itself."""

import threading

from PIL import Image

from egapipe.pipeline.datasets.decoding import images
from egapipe.pipeline.datasets.decoding.in_flight import Pixels
from tests.pipeline.datasets.test_images import encode


def test_what_does_not_fit_beside_the_others_waits_for_them() -> None:
    pixels = Pixels(100)
    first, second = threading.Event(), threading.Event()
    seen: list[int] = []

    def large() -> None:
        with pixels.row():
            pixels.claim(80)
            first.set()
            second.wait(60)

    def another() -> None:
        with pixels.row():
            first.wait(60)
            pixels.claim(30)
            seen.append(pixels.count)

    threads = [threading.Thread(target=act) for act in (large, another)]
    for thread in threads:
        thread.start()
    first.wait(60)
    with pixels.row():
        pixels.claim(20)
        assert pixels.count == 100
    assert seen == []
    second.set()
    for thread in threads:
        thread.join(60)
    assert seen == [30]
    assert pixels.count == 0


def test_an_image_is_counted_once_and_one_alone_always_fits() -> None:
    pixels = Pixels(100)
    with pixels.row():
        for _ in range(3):
            pixels.claim(70)
        assert pixels.count == 70
        pixels.claim(1000)
        assert pixels.count == 1000
    pixels.claim(7)
    assert pixels.count == 0


def test_decoding_claims_the_pixels_of_the_header() -> None:
    data = encode(Image.new("RGBA", (30, 20)), "png")
    with images.IN_FLIGHT.row():
        images.decode(data)
        assert images.IN_FLIGHT.count == 600
    images.decode(data)
    assert images.IN_FLIGHT.count == 0
