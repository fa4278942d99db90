"""What is chosen for each page of a file, where something chooses."""

import numpy as np
from pictures import Page, Scene, Untouched, write_tiff

from urushi.inference.auto import AutoRestorer
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.choice import Choice
from urushi.inference.picture_files import FileOptions

GREY = Scene().grey


class Chooser(AutoRestorer):
    """Sees noise in bright pages, and remembers what it was asked for."""

    adapters = ()

    def __init__(self):
        self.asked, self.made = [], []

    def choose_file(self, path, *, max_pixels=None, page=None, samples=None):
        self.asked.append(page)
        noisy = page == 1
        return Choice((("noise", 1.0),) if noisy else (), "noise (90 %)" if noisy else "clean")

    def restorer(self, choice):
        self.made.append(choice.route)
        return Untouched()


def restored(tmp_path, *pages, **options):
    source = write_tiff(tmp_path / "in.tif", *pages)
    chooser = Chooser()
    report = run_batch(
        chooser, plan_batch([source], tmp_path / "out.tif"), options=FileOptions(**options)
    )
    (result,) = report.results
    assert result.status == "restored", result.message
    return chooser, result


def test_each_page_has_its_own_choice(tmp_path):
    chooser, result = restored(tmp_path, Page(GREY), Page(GREY), Page(GREY))
    assert chooser.asked == [None, 1, 2]
    assert chooser.made == [(), (("noise", 1.0),), ()]
    assert result.notes == ("Page 2, unlike the first: noise (90 %).",)
    assert result.choice.reason == "clean"
    assert result.pixels == 3 * GREY.size


def test_a_choice_of_pages_is_looked_at(tmp_path):
    chooser, result = restored(tmp_path, Page(GREY), Page(GREY), pages="2")
    assert chooser.asked == [1]
    assert result.choice.reason == "noise (90 %)"
    assert result.notes == ()


def test_planes_of_one_thing_are_treated_alike(tmp_path):
    told = b"ImageJ=1.53t\nimages=3\nslices=3\n"
    planes = [Page(GREY, 1, {270: told}), Page(GREY), Page(np.roll(GREY, 3))]
    chooser, result = restored(tmp_path, *planes)
    assert chooser.asked == [None]
    assert chooser.made == [()]
    assert result.notes == ()
