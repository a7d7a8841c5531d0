"""Films in every family: tokens and times as the library's own processors give them, and sampling by number or rate."""

import re

import pytest
import torch
from families import NAMES, processor_of, tiny
from PIL import Image
from small_files import write_long_video
from transformers import Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from plume_embed import PlumeProcessor
from plume_embed.model.families_plume import FAMILIES
from plume_embed.model.family_plume import Film


def library_prompt(name: str, film: Film) -> tuple[list[int], dict[str, torch.Tensor]]:
    """A film through the library's own processor: the token ids of "a<film>b", and its grids and seconds."""
    made = tiny(name)
    processor = {"qwen3_vl": Qwen3VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}[name](
        made.processor.image_processor, made.processor.tokenizer, made.processor.video_processor
    )
    indices = list(range(len(film.frames)))
    metadata = VideoMetadata(len(indices), fps=film.fps, frames_indices=indices)
    options = {"do_sample_frames": False, "cap_pixels_per_frame": False, "video_metadata": [metadata]}
    batch = processor(
        text=[f"a{FAMILIES[name].video_placeholder}b"], videos=[film.frames], return_tensors="pt", videos_kwargs=options
    )
    return batch["input_ids"][0].tolist(), batch


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])
def test_a_film_has_the_tokens_and_the_times_that_the_librarys_processor_gives_it(name, count):
    made = tiny(name)
    frames = torch.randint(0, 256, (count, 3, 56, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    film = Film(frames, tuple(index / 4.0 for index in range(count)), fps=4.0)
    tensors, span = made.family.film(made.processor, film, {})
    theirs, batch = library_prompt(name, film)
    encode = made.processor.tokenizer.encode
    template = FAMILIES[name].video_placeholder.split("<|video_pad|>")
    assert [*encode(f"a{template[0]}"), *span.ids, *encode(f"{template[1]}b")] == theirs
    assert torch.equal(tensors["pixel_values_videos"], batch["pixel_values_videos"])
    if name == "qwen2_5_vl":
        seconds = float(batch["second_per_grid_ts"][0])
        assert span.blocks[0].time_step == seconds * made.model.config.backbone_config.vision_config.tokens_per_second


@pytest.mark.parametrize("name", NAMES)
def test_a_film_of_one_frame_stands_still_for_a_block(name):
    film = Film(torch.zeros(1, 3, 40, 40, dtype=torch.uint8), (0.0,), 2.0)
    tensors, span = tiny(name).family.film(tiny(name).processor, film, {})
    assert len(span.ids) > 0 and all(len(tensor) for tensor in tensors.values())


def test_positions_and_words_follow_the_seconds_of_a_film_file(tmp_path):
    write_long_video(tmp_path / "film.mp4", seconds=6, rate=4.0)
    item = {"video": tmp_path / "film.mp4"}
    for fps in (1.0, 2.0):
        made = processor_of("qwen3_vl", fps=fps)
        assert (made.num_frames, made.fps) == (None, fps)
        text = made.tokenizer.decode(made([item])["input_ids"][0])
        times = [float(time) for time in re.findall(r"<([\d.]+) seconds>", text)]
        assert len(times) == 3 * fps and times == sorted(times) and 4 < times[-1] < 6
    axes = [processor_of("qwen2_5_vl", num_frames=count)([item])["position_ids"][0, 0] for count in (4, 8)]
    spans = [int(axis.diff().abs().cumsum(0)[-1]) for axis in axes]
    assert spans[0] != spans[1]


def test_a_film_is_sampled_by_number_or_by_rate_and_never_both(tmp_path):
    with pytest.raises(
        ValueError, match="by num_frames or by fps, got num_frames=4 and fps=2; set one of them to None"
    ):
        processor_of("qwen3_vl", num_frames=4, fps=2)
    made, film = processor_of("qwen3_vl"), tmp_path / "film.mp4"
    write_long_video(film, seconds=2, rate=4.0)
    made.fps = 2.0  # beside the eight frames that it has
    for used in (lambda: made([{"video": film}]), lambda: made.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match="got num_frames=8 and fps=2.0; set one of them to None"):
            used()
    made.num_frames, made.fps, made.frames_fps = None, 0.5, 8.0
    made.save_pretrained(tmp_path)
    loaded = PlumeProcessor.from_pretrained(tmp_path)
    assert (loaded.num_frames, loaded.fps, loaded.frames_fps) == (None, 0.5, 8.0)
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "red", "blue")]
    text = loaded.tokenizer.decode(loaded([{"video": frames}])["input_ids"][0])
    assert re.findall(r"<([\d.]+) seconds>", text) == ["0.1", "0.3"]  # frames at 0, 1/8, 2/8, 3/8
