# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""PlumeProcessor: any input -> one padded prefix batch.

It owns the media limits, the padding side and the prefix positions; prompt_plume.py has the prompt. Every way into the
model (AutoModel, sentence-transformers, the command line, training) builds its prefix here.
"""

import math
import numbers
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import BatchFeature, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from .families_plume import MEDIA_ARGUMENTS, backbone_family, make_backbone_config
from .family_plume import BackboneFamily, Film, MediaSpan
from .images_plume import MAX_PIXELS, is_source
from .inputs_plume import (
    ItemError,
    describe,
    is_conversation,
    is_one_conversation,
    normalize_conversation,
    to_conversation,
)
from .media_plume import load_image, load_video
from .prompt_plume import (
    ANCHOR_TOKEN,
    EMBEDDING_TOKEN,
    LATENT_END_TOKEN,
    LATENT_START_TOKEN,
    PLUME_TOKENS,
    SUFFIX_TEXT,
    PromptWriter,
    build_chat_template,
    content_parts,
    without_cuts,
)
from .resizing_plume import shrunk
from .sentence_transformers_plume import SENTENCE_TRANSFORMERS_FILES, PlumeBatch, write_sentence_transformers_files

# Characters per token of the limit that are tokenised to detect a text far beyond it.
_CHARACTERS_TRIED = 16
# Arguments of chat models that do not change an embedding: the prompt is fixed, and rows are padded on the left.
_CHAT_ARGUMENTS = frozenset(
    {"add_generation_prompt", "continue_final_message", "sanitize_control_tokens", "load_audio_from_video", "tools"}
    | {"documents", "return_assistant_tokens_mask"}
)
# Arguments of `from_pretrained` that say where the config beside the processor lies, and how it is fetched.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# Attributes that others of a processor are made from.
_FIXED = frozenset({"tokenizer", "backbone_type"})
# Settings that are whole numbers, and the least value of each.
_LEAST = {"max_frames": 1, "max_image_pixels": 1, "page_words": 0}
_TOKEN_ARGUMENTS = ("input_ids", "attention_mask", "position_ids")
_TEXT_ARGUMENTS = ("truncation", "max_length", "padding", "padding_side", "return_tensors")


class PlumeProcessor(ProcessorMixin):
    r"""Turns texts, images, videos and their combinations into a batch for [`PlumeModel`].

    One item is a string, a PIL image or `pathlib.Path`, the bytes of a picture's file (or a binary file, or the dict
    with "bytes" and "path" that `datasets` gives undecoded), a uint8 array (three axes: image, four: video), a list of
    images (the frames of a video), a dict with the keys text, image, video (a list for several; `None` is not there),
    a chat message or a list of chat messages. A string is always text: give a path as
    string, or the bytes of a video, under a media key.

    Args:
        image_processor, tokenizer, video_processor: The backbone's own. Their `size` limits the pixels.
        chat_template (`str`, *optional*): The prompt, as a Jinja template. Defaults to [`build_chat_template`].
        backbone_type (`str`, defaults to `"qwen2_vl"`): Model type of the backbone, which decides the positions.
        backbone_settings (`dict`, *optional*): Further values of the backbone's config that decide the positions, as
            `BackboneFamily.settings` gives them.
        vision_position_advance (`str`, defaults to `"max_hw"`): See [`PlumeConfig`]; must be the same there.
        blank_image_for_text (`bool`, defaults to `False`): Whether inputs without media get a white 28 x 28 image in
            front: part of the protocol of converted checkpoints.
        num_frames (`int`, *optional*): Evenly spaced frames taken of a video file; 8, unless there is `fps`.
        fps (`float`, *optional*): Frames per second taken of a video file, instead of `num_frames`.
        frames_fps (`float`, defaults to 2.0): Frame rate assumed for a video given as frames, as Qwen does, unless they
            are [`TimedFrames`]. It matters for backbones that encode times.
        max_frames (`int`, defaults to 256): Most frames that a caller may hand over for one video.
        max_length (`int`, defaults to 11288): Most tokens of a row. Nothing is ever truncated: a longer row raises.
            It is the tokenizer's `model_max_length`, so that libraries show it, and what they set there
            (`max_seq_length` of sentence-transformers) holds.
        max_image_pixels (`int`, defaults to 100 million): Most pixels of a picture, or of a film's frame, before it is
            resized; a larger one is refused before it is decoded.
        page_words (`int`, defaults to 0): Words from the top of a page's text layer that are embedded with its picture
            where pages are read from files, for models that cannot read text in pictures.
    """

    model_input_names = [*_TOKEN_ARGUMENTS, *MEDIA_ARGUMENTS]
    item_error = ItemError  # for callers that have a processor from the Hub and cannot import its files

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template: str | None = None,
        backbone_type: str = "qwen2_vl",
        backbone_settings: dict[str, Any] | None = None,
        vision_position_advance: str = "max_hw",
        blank_image_for_text: bool = False,
        num_frames: int | None = None,
        max_frames: int = 256,
        max_length: int = 11288,
        max_image_pixels: int = MAX_PIXELS,
        fps: float | None = None,
        frames_fps: float = 2.0,
        page_words: int = 0,
    ):
        family = backbone_family(backbone_type)
        if vision_position_advance not in family.position_advances:
            raise ValueError(
                f"vision_position_advance of {backbone_type} must be one of {', '.join(family.position_advances)}, got "
                f"{vision_position_advance!r}."
            )
        self.backbone_type = backbone_type
        self.backbone_settings = backbone_settings or {}
        self.vision_position_advance = vision_position_advance
        self.blank_image_for_text = blank_image_for_text
        self.num_frames = 8 if num_frames is None and fps is None else num_frames
        self.fps = fps
        self.frames_fps = frames_fps
        self.max_frames = max_frames
        self.max_image_pixels = max_image_pixels
        self.page_words = page_words
        self._check_settings()
        super().__init__(
            image_processor,
            tokenizer,
            video_processor,
            chat_template=chat_template or build_chat_template(backbone_type=backbone_type),
        )
        self.max_length = max_length
        if tokenizer.pad_token_id is None:
            raise ValueError(
                "The tokenizer has no padding token; is tokenizer_config.json there? Fetch the model's folder again."
            )
        tokenizer.padding_side = "left"
        known = tokenizer.get_vocab()
        missing = [token for token in PLUME_TOKENS if token not in known]
        if missing:
            raise ValueError(f"The tokenizer lacks {', '.join(missing)}; add them with `plume-embed init`.")
        if not {family.image_token, family.video_token} <= known.keys():
            raise ValueError(
                f"The tokenizer lacks {family.image_token} or {family.video_token}; use the backbone's own."
            )
        self.image_token_id = known[family.image_token]
        self.video_token_id = known[family.video_token]
        self._media_ids = {self.image_token_id, self.video_token_id}
        self._prompts = PromptWriter(tokenizer, (family.image_token, family.video_token))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Loads a processor and checks it against the config of the model beside it.

        Raises:
            ValueError: the two disagree about positions or tokens, and vectors would be wrong.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if "model_max_length" in kwargs:  # how libraries ask for another limit when loading
            processor.max_length = kwargs["model_max_length"]
        hub_kwargs = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        try:
            config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
        except OSError:  # a folder with a processor alone
            return processor
        ours = {
            "vision_position_advance": processor.vision_position_advance,
            **processor.special_token_ids(),
            "suffix_token_ids": processor.suffix_token_ids(),
        }
        backbone = {"model_type": processor.backbone_type, **config.get("backbone_config", {})}
        wrong = {name: (config[name], value) for name, value in ours.items() if config.get(name, value) != value}
        if backbone["model_type"] != processor.backbone_type:
            wrong["backbone_type"] = (backbone["model_type"], processor.backbone_type)
        elif "backbone_config" in config:
            settings = processor.family.settings(make_backbone_config(backbone))
            if settings != processor.backbone_settings:
                wrong["backbone_settings"] = (settings, processor.backbone_settings)
        if wrong:
            raise ValueError(
                "config.json and the processor disagree (config, processor): "
                f"{wrong}. Save model and processor together, or make the folder again with `plume-embed convert`."
            )
        return processor

    @classmethod
    def from_args_and_dict(cls, args, processor_dict: dict[str, Any], **kwargs):
        """What `from_pretrained` makes of the saved files.

        Raises:
            ValueError: the prompt is not among them. The default one may be another, and every vector with it.
        """
        if (kwargs.get("chat_template") or processor_dict.get("chat_template")) is None:
            raise ValueError("The model's folder has no chat_template.jinja, its prompt; fetch the whole folder again.")
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    @property
    def max_length(self) -> int:
        """Most tokens of a row."""
        return self.tokenizer.model_max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        _check_whole("max_length", value, least=1)
        self.tokenizer.model_max_length = int(value)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a setting, and refuses what the prompt and the token ids were made with: they would stay as they are.

        Raises:
            ValueError: it is another tokenizer or another backbone.
        """
        if name in _FIXED and vars(self).get(name, value) != value:
            raise ValueError(
                f"The {name} of a processor cannot be changed: its prompt and its token ids are made with it. Make "
                "another processor: PlumeProcessor(image_processor, tokenizer, video_processor, ...)."
            )
        super().__setattr__(name, value)

    def _check_settings(self) -> None:
        """Refuses settings of the wrong kind, and those of films that contradict each other; they can be changed at any
        time."""
        for name, least in _LEAST.items():
            _check_whole(name, getattr(self, name), least)
        if not isinstance(self.blank_image_for_text, bool):
            raise ValueError(f"blank_image_for_text must be True or False, got {self.blank_image_for_text!r}.")
        num_frames, fps = self.num_frames, self.fps
        if (num_frames is None) == (fps is None):
            raise ValueError(
                f"A film is sampled by num_frames or by fps, got num_frames={num_frames} and fps={fps}; set "
                "one of them to None."
            )
        rates = {"num_frames": num_frames, "fps": fps}
        rates = {name: value for name, value in rates.items() if value is not None} | {"frames_fps": self.frames_fps}
        if not all(_is_rate(name, value) for name, value in rates.items()):
            shown = ", ".join(f"{name}={value!r}" for name, value in rates.items())
            raise ValueError(
                f"num_frames must be a whole number above 0, fps and frames_fps must be numbers above 0, got {shown}."
            )

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"max_length": self.max_length}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Saves the processor, its code, and the files that make the folder load in sentence-transformers."""
        self._check_settings()  # what is saved can be loaded
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_sentence_transformers_files(folder)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _get_files_timestamps(self, working_dir) -> dict[str, float]:
        """The library pushes what has changed since; the files above are written before it looks, and always pushed."""
        known = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in known.items() if name not in SENTENCE_TRANSFORMERS_FILES}

    def special_token_ids(self) -> dict[str, int]:
        """The token ids that [`PlumeConfig`] carries, by the names it has for them."""
        tokens = {
            "anchor_token_id": ANCHOR_TOKEN,
            "latent_start_token_id": LATENT_START_TOKEN,
            "latent_end_token_id": LATENT_END_TOKEN,
            "embedding_token_id": EMBEDDING_TOKEN,
        }
        return {name: self.tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}

    def suffix_token_ids(self) -> list[int]:
        """Ids of the fixed tokens after the rollout; the embedding is read at the last one."""
        return self.tokenizer.encode(SUFFIX_TEXT, add_special_tokens=False)

    def __call__(
        self, inputs: Any = None, images_kwargs: dict | None = None, videos_kwargs: dict | None = None, **kwargs
    ):
        """One batch for `PlumeModel`.

        Args:
            inputs: A list of items (see the class), or one item that is not a list. A list of chat messages is one
                conversation where one of them is a system message, and else an item for each message.
            images_kwargs, videos_kwargs (`dict`, *optional*): Passed on to the image and the video processor. The
                keys num_frames or fps (frames a second) of `videos_kwargs` say how film files are sampled.
            return_tensors (`"pt"` or `"np"`, *optional*): PyTorch tensors, by default, or NumPy arrays.

        Returns:
            [`BatchFeature`] with `input_ids`, `attention_mask` [B, L], `position_ids` [B, 3, L] and, where there are
            media, the family's `media_arguments`.

        Raises:
            ItemError: an item that is no valid input, with its index in the batch and a short description. It is a
                ValueError, as is every error about the batch or the options.
        """
        if inputs is None or set(kwargs) - {"return_tensors"}:
            raise ValueError(
                f"PlumeProcessor takes a list of items; got also {sorted(kwargs)}. Write an image with its text as "
                "{'image': ..., 'text': ...}."
            )
        items = inputs if isinstance(inputs, list) and not is_one_conversation(inputs) else [inputs]
        conversations = []
        for index, item in enumerate(items):
            with _naming_the_item(item, index):
                conversations.append(to_conversation(item))
        batch = self._batch(conversations, images_kwargs, videos_kwargs, is_in_order=True)
        return _as_tensors(batch, kwargs.get("return_tensors"))

    def apply_chat_template(
        self,
        conversation: list[dict] | list[list[dict]],
        chat_template: str | None = None,
        tokenize: bool = False,
        processor_kwargs: dict | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        **kwargs,
    ):
        """The library's way in: the same batch as `processor(items)` for the same content.

        Args:
            conversation: One conversation or a list of them.
            chat_template (`str`, *optional*): Refused: another prompt is another embedding.
            tokenize (`bool`, defaults to `False`): `False` returns the prompt as text, media as one placeholder each.
            processor_kwargs (`dict`, *optional*): `images_kwargs` and `videos_kwargs` are passed on; a truncation
                length is refused. The prompt always ends in the start token and control tokens in user text are always
                encoded as plain text, whatever the arguments of chat models say.
            return_tensors (`"pt"` or `"np"`, *optional*): PyTorch tensors, by default, or NumPy arrays.
            return_dict (`bool`, defaults to `True`): `False` returns `input_ids` alone.

        Raises:
            ValueError: an argument that would ask for something else, or an item that is no valid input.
        """
        if chat_template is not None and chat_template != self.chat_template:
            raise ValueError("The prompt is part of the model; set processor.chat_template to change it for good.")
        processor_kwargs = dict(processor_kwargs or {})
        for name in [name for name in kwargs if name not in _CHAT_ARGUMENTS]:  # older transformers pass them unnested
            processor_kwargs[name] = kwargs.pop(name)
        common = processor_kwargs.pop("common_kwargs", {}) | processor_kwargs.pop("text_kwargs", {})
        options = {name: processor_kwargs.pop(name, None) for name in ("images_kwargs", "videos_kwargs")}
        common |= {name: processor_kwargs.pop(name) for name in _TEXT_ARGUMENTS if name in processor_kwargs}
        if unknown := sorted(processor_kwargs.keys() - {"audio_kwargs"}):
            raise ValueError(
                f"apply_chat_template takes no {', '.join(unknown)}; put what is for pictures or films into "
                "images_kwargs or videos_kwargs."
            )
        if common.get("max_length") is not None and common.get("truncation"):
            raise ValueError(
                "A PLUME prefix cannot be truncated, it would lose its start token; shorten the text itself or lower "
                "the pixel limits (images_kwargs={'size': {...}})."
            )
        is_batched = not is_conversation(conversation)
        conversations = [list(c) for c in conversation] if is_batched else [conversation]
        if tokenize:
            batch = self._batch(conversations, options["images_kwargs"], options["videos_kwargs"])
            batch = _as_tensors(batch, return_tensors or common.get("return_tensors"))
            return batch if return_dict else batch["input_ids"]
        prompts = []
        for one in conversations:
            with _naming_the_item(one):
                shown = self._with_blank_image(normalize_conversation(one))
                prompts.append(without_cuts(self._prompts.render(shown, self.chat_template)))
        return prompts if is_batched else prompts[0]

    def _batch(
        self,
        conversations: list[list[dict]],
        images_kwargs: dict | None,
        videos_kwargs: dict | None,
        is_in_order: bool = False,
    ) -> BatchFeature:
        """A batch of conversations; `is_in_order` where no library has sorted them, so that errors can give indices."""
        if not conversations:
            raise ValueError("The batch is empty.")
        self._check_settings()
        indices = range(len(conversations)) if is_in_order else [None] * len(conversations)
        rows, tensors, spans = [], defaultdict(list), []
        counts = {name: [0] * len(conversations) for name in self.family.media_counts}
        for place, (index, conversation) in enumerate(zip(indices, conversations, strict=True)):
            with _naming_the_item(conversation, index):
                rows.append(self._with_blank_image(normalize_conversation(conversation)))
                self._check_length(rows[-1])
                spans.append([])
                for arguments, span in self._media(rows[-1], images_kwargs or {}, videos_kwargs or {}):
                    spans[-1].append(span)
                    for name, tensor in arguments.items():
                        tensors[name].append(tensor)
                    for name, counted in self.family.media_counts.items():
                        counts[name][place] += len(arguments.get(counted, ()))
        return PlumeBatch(
            {**self._tokens(rows, spans, indices), **_joined(tensors)},
            {name: torch.tensor(numbers) for name, numbers in counts.items()},
        )

    @property
    def family(self) -> BackboneFamily:
        """What is particular to the kind of backbone."""
        return backbone_family(self.backbone_type)

    @property
    def sees_times(self) -> bool:
        """Whether the vector of a film depends on when its frames are shown."""
        return self.family.sees_times

    def _media(
        self, row: list[dict], images_kwargs: dict, videos_kwargs: dict
    ) -> list[tuple[dict[str, torch.Tensor], MediaSpan]]:
        """The media of a row in the order of its prompt, one at a time: at its full size, one is in memory."""
        sampling, options = _sampling(videos_kwargs)
        images, videos = content_parts(row, "image"), content_parts(row, "video")
        media = [self._picture(one, images_kwargs) for one in images]
        return media + [self._frames(self._film(one, sampling), options) for one in videos]

    def _picture(self, image: Any, options: dict) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        picture = load_image(image, self.max_image_pixels)
        if not options:  # the library's own resize of a photograph, in a third of the time
            picture = shrunk(self, {"image": picture})["image"]
        with _naming_the_options("images_kwargs", options):
            return self.family.picture(self, picture, options)

    def _frames(self, film: Film, options: dict) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        with _naming_the_options("videos_kwargs", options):
            return self.family.film(self, film, options)

    def _film(self, video: Any, sampling: dict) -> Film:
        if sampling and not is_source(video):
            raise ValueError(
                f"{' and '.join(sampling)} cannot be asked for here: the frames that you chose are all used; hand over "
                "a path, or choose the frames."
            )
        sampling = sampling or {"num_frames": self.num_frames, "fps": self.fps}
        num_frames, fps = sampling.get("num_frames"), sampling.get("fps")
        frames, times = load_video(video, num_frames, self.max_frames, self.max_image_pixels, fps)
        if times is None:  # the caller gave frames, which have no times
            times = tuple(index / self.frames_fps for index in range(len(frames)))
        seconds = times[-1] - times[0]  # a clip need not begin with a frame
        rate = (len(times) - 1) / seconds if seconds > 0 else self.frames_fps
        return Film(frames, times, rate)

    def shrunk(self, content: dict[str, Any]) -> dict[str, Any]:
        """The item with its pictures resized to what the model sees, so that many can wait in memory.

        Its vector is the same to the bit; see [`shrunk`] of resizing_plume.
        """
        return shrunk(self, content)

    def _with_blank_image(self, conversation: list[dict]) -> list[dict]:
        if (
            not self.blank_image_for_text
            or content_parts(conversation, "image")
            or content_parts(conversation, "video")
        ):
            return conversation
        blank = {"type": "image", "image": Image.new("RGB", (28, 28), "white")}
        return [*conversation, {"role": "user", "content": [blank]}]

    def _tokens(
        self, rows: list[list[dict]], spans: list[list[MediaSpan]], indices: Sequence[int | None]
    ) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` [B, L] and `position_ids` [B, 3, L], padded on the left."""
        all_ids, all_positions = [], []
        for index, row, row_spans in zip(indices, rows, spans, strict=True):
            ids = self._row_ids(row, row_spans)
            if len(ids) > self.max_length:
                raise ItemError(self._too_long(f"{len(ids)}"), describe(row), index)
            all_ids.append(torch.tensor(ids))
            blocks = [block for span in row_spans for block in span.blocks]
            is_visual = [token_id in self._media_ids for token_id in ids]
            all_positions.append(self.family.prefix_positions(is_visual, blocks, self.vision_position_advance))
        return self._padded(all_ids, all_positions)

    def row_length(self, text: str) -> int:
        """Tokens of the row of a text alone, prompt and blank image included, also where they are over `max_length`.

        A control token in the text counts as what the row has of it: the tokens of its characters.

        Raises:
            ValueError: it is no valid text.
        """
        row = self._with_blank_image(normalize_conversation(to_conversation({"text": text})))
        return len(self._row_ids(row, [span for _, span in self._media(row, {}, {})]))

    def least_length(self, text: str) -> int:
        """Tokens that a text alone surely has, by its first ones, where it is far beyond `max_length`; else 0.

        So it can be refused before it is tokenised, which can take minutes and gigabytes.
        """
        text, tried = text.strip(), _CHARACTERS_TRIED * self.max_length
        if len(text) <= tried:
            return 0
        found = len(self.tokenizer.encode(text[:tried], add_special_tokens=False))
        longest = max(map(len, self.tokenizer.get_vocab()))  # characters of a token, as the vocabulary writes it
        # The last word tried may be cut; twice the limit leaves no doubt.
        is_far_beyond = found > 2 * self.max_length or len(text) > longest * self.max_length
        return max(found // 2, self.max_length) + 1 if is_far_beyond else 0

    def collate(self, batches: Sequence[BatchFeature]) -> BatchFeature:
        """Batches as one, padded anew: what the processor gives for all of their items at once.

        So items can be processed one by one, each as soon as it comes, and be batched when their lengths are known.

        Args:
            batches: Of this processor.

        Raises:
            ValueError: there are none.
        """
        if not batches:
            raise ValueError("There are no batches to collate.")
        all_ids, all_positions, media = [], [], defaultdict(list)
        for batch in batches:
            for ids, mask, positions in zip(*(batch[name] for name in _TOKEN_ARGUMENTS), strict=True):
                all_ids.append(ids[mask.bool()])
                all_positions.append(positions[:, mask.bool()])
            for name in batch.keys() - set(_TOKEN_ARGUMENTS):
                media[name].append(batch[name])
        return BatchFeature({**self._padded(all_ids, all_positions), **_joined(media)})

    def separate(self, batch: BatchFeature) -> list[BatchFeature]:
        """The rows of a batch, each as a batch of its own without padding: the opposite of [`collate`]. A batch of one
        row is given back as it is.

        Args:
            batch: Of this processor.

        Raises:
            ValueError: several rows with media, of which a batch does not say whose they are.
        """
        media = batch.keys() - set(_TOKEN_ARGUMENTS)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        if len(lengths) == 1:
            return [batch]
        if media:
            raise ValueError(
                f"Rows with media ({', '.join(sorted(media))}) cannot be separated; process them one by one."
            )
        return [
            # Copies: a view would keep the padding of the whole batch in memory.
            BatchFeature({name: batch[name][row : row + 1, ..., -length:].clone() for name in _TOKEN_ARGUMENTS})
            for row, length in enumerate(lengths)
        ]

    def _padded(self, all_ids: list[torch.Tensor], all_positions: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rows of ids [L] and positions [3, L] of several lengths, padded on the left."""
        count, length = len(all_ids), max(map(len, all_ids))
        input_ids = torch.full((count, length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros(count, length, dtype=torch.long)
        position_ids = torch.zeros(count, 3, length, dtype=torch.long)
        for index, (ids, positions) in enumerate(zip(all_ids, all_positions, strict=True)):
            input_ids[index, length - len(ids) :] = ids
            attention_mask[index, length - len(ids) :] = 1
            position_ids[index, :, length - len(ids) :] = positions
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}

    def _row_ids(self, row: list[dict], spans: list[MediaSpan]) -> list[int]:
        """The token ids of a row, its media included."""
        return self._with_media(self._prompts.encode(self._prompts.render(row, self.chat_template)), spans)

    def _with_media(self, prompt: list[int], spans: list[MediaSpan]) -> list[int]:
        """The token ids of a prompt with every placeholder replaced by its span."""
        remaining, ids = iter(spans), []
        for token_id in prompt:
            span = next(remaining, None) if token_id in self._media_ids else MediaSpan(token_id, [token_id])
            if span is None or span.placeholder_id != token_id:
                raise ValueError("The chat template must write one placeholder for each image, then each video.")
            ids += span.ids
        if next(remaining, None) is not None:
            raise ValueError("The chat template must write one placeholder for each image, then each video.")
        return ids

    def _check_length(self, row: list[dict]) -> None:
        """Refuses a text far beyond the limit, see [`least_length`]."""
        if least := self.least_length("".join(content_parts(row, "text"))):
            raise ValueError(self._too_long(f"more than {least - 1}"))

    def _too_long(self, num_tokens: str) -> str:
        return (
            f"It has {num_tokens} tokens, over the processor's max_length={self.max_length}, and nothing is truncated; "
            "split the text or lower the pixel limits (image_processor.size)."
        )


def _as_tensors(batch: BatchFeature, kind: str | None) -> BatchFeature:
    if kind in (None, "pt"):
        return batch
    if kind != "np":
        raise ValueError(f"return_tensors must be 'pt' or 'np', got {kind!r}.")
    return BatchFeature({name: tensor.numpy() for name, tensor in batch.items()})


def _sampling(videos_kwargs: dict) -> tuple[dict, dict]:
    """Options of a call for videos: how files are sampled here, and what the video processor gets."""
    sampling = {name: videos_kwargs[name] for name in ("num_frames", "fps") if videos_kwargs.get(name) is not None}
    if len(sampling) == 2 or not all(_is_rate(name, value) for name, value in sampling.items()):
        raise ValueError(
            f"A film is sampled by num_frames, a whole number, or by fps, one of them and above 0; got {sampling}."
        )
    if videos_kwargs.get("do_sample_frames"):
        raise ValueError(
            "PlumeProcessor samples frames itself: instead of do_sample_frames pass num_frames or fps in videos_kwargs."
        )
    kept_back = ("num_frames", "fps", "video_metadata")
    return sampling, {name: value for name, value in videos_kwargs.items() if name not in kept_back}


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def _is_rate(name: str, value: Any) -> bool:
    kind = numbers.Integral if name == "num_frames" else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool) and 0 < value < math.inf


@contextmanager
def _naming_the_options(name: str, options: dict) -> Iterator[None]:
    try:
        yield
    except (TypeError, RuntimeError, AttributeError, LookupError, StrictDataclassError) as error:
        if not options:
            raise
        raise ValueError(f"{name}={options} cannot be followed: {' '.join(str(error).split())}") from error


def _joined(media: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The media of all rows, one after the other."""
    for name, tensors in media.items():
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            raise ValueError(
                f"Pictures and frames have different sizes after resizing ({name}); leave images_kwargs out."
            )
    return {name: torch.cat(tensors) for name, tensors in media.items()}


@contextmanager
def _naming_the_item(item: Any, index: int | None = None) -> Iterator[None]:
    try:
        yield
    except ItemError:
        raise
    except ValueError as error:
        raise ItemError(str(error), describe(item), index) from error


PlumeProcessor.register_for_auto_class()

__all__ = ["PlumeProcessor", "build_chat_template"]
