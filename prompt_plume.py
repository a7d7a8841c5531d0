# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The prompt: PLUME's tokens, the instruction, the template, and a user's text in it.

A control token that a user types is text: it is cut in two before the tokenizer sees it, so that none can be forged.
Words that a user added to the vocabulary (`tokenizer.add_tokens`) are no control tokens.
"""

import json
import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from .families_plume import backbone_family

ANCHOR_TOKEN = "<disc_emb>"
LATENT_START_TOKEN = "<bot>"
LATENT_END_TOKEN = "<eot>"
EMBEDDING_TOKEN = "<gen_emb>"
# In the order in which the released tokenizer added them; <ct> stands for a latent step in its training data.
PLUME_TOKENS = (EMBEDDING_TOKEN, ANCHOR_TOKEN, LATENT_START_TOKEN, LATENT_END_TOKEN, "<ct>")
THINK_TOKENS = ("<think>", "</think>")  # tokens of some backbones, plain text in others
SUFFIX_TEXT = f"{LATENT_END_TOKEN}</think>\n{EMBEDDING_TOKEN}"

# The instruction that the released weights were trained with: part of the protocol, to the letter.
INSTRUCTION = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings. First output the "
    "thinking process in <think> </think> tags and then summarize the entire input in a word or sentence. Finally, use "
    "the <gen_emb> tag to represent the entire input."
)

SYSTEM_MESSAGE = "You are a helpful assistant."


def build_chat_template(
    instruction: str = INSTRUCTION,
    system_message: str | None = SYSTEM_MESSAGE,
    backbone_type: str = "qwen2_vl",
) -> str:
    """The prompt as a Jinja template, the form in which it travels with the weights (chat_template.jinja).

    Media come first whatever the order of the parts: all images, all videos, then the text. A system message of the
    conversation (what sentence-transformers makes of a prompt) goes in front of the text, unchanged: prompt + text.

    Args:
        instruction (`str`): What follows the anchor in the user turn.
        system_message (`str`, *optional*): The system turn; `None` leaves the turn out.
        backbone_type (`str`): Model type of the backbone, which has its own placeholders for media.
    """
    family = backbone_family(backbone_type)
    system = f"<|im_start|>system\n{system_message}<|im_end|>\n" if system_message is not None else ""
    head = f"{system}<|im_start|>user\n"
    tail = f"\n{ANCHOR_TOKEN}\n{instruction}<|im_end|>\n<|im_start|>assistant\n<think>{LATENT_START_TOKEN}"
    return f"""\
{{%- set ns = namespace(images='', videos='', text='') -%}}
{{%- for message in messages -%}}
  {{%- if message['role'] not in ['system', 'user'] -%}}
    {{{{- raise_exception('PLUME embeds system and user messages only, got role ' ~ message['role']) -}}}}
  {{%- endif -%}}
  {{%- if message['content'] is string -%}}
    {{%- set ns.text = ns.text ~ message['content'] -%}}
  {{%- else -%}}
    {{%- set seen = namespace(text=false) -%}}
    {{%- for part in message['content'] -%}}
      {{%- if part['type'] == 'image' -%}}
        {{%- set ns.images = ns.images ~ '{family.image_placeholder}' -%}}
      {{%- elif part['type'] == 'video' -%}}
        {{%- set ns.videos = ns.videos ~ '{family.video_placeholder}' -%}}
      {{%- else -%}}
        {{%- set ns.text = ns.text ~ ('\n' if seen.text else '') ~ part['text'] -%}}
        {{%- set seen.text = true -%}}
      {{%- endif -%}}
    {{%- endfor -%}}
  {{%- endif -%}}
{{%- endfor -%}}
{{{{- {json.dumps(head, ensure_ascii=False)} ~ ns.images ~ ns.videos ~ ns.text | trim -}}}}
{{{{- {json.dumps(tail, ensure_ascii=False)} -}}}}
"""


# A private-use character that marks, until tokenisation, where a control token typed by a user is cut in two.
_CUT = "\U000f0000"


def content_parts(conversation: list[dict], kind: str) -> list[Any]:
    """The "text", "image" or "video" parts of a conversation, in order."""
    return [part[kind] for message in conversation for part in message["content"] if part["type"] == kind]


class PromptWriter:
    """Renders the prompt of a row, and turns it into token ids, with the tokenizer and the template of a processor.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the processor.
        media_tokens (`tuple[str, ...]`): The backbone's tokens that stand for a picture or a film.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, media_tokens: tuple[str, ...]):
        self.tokenizer = tokenizer
        self._prompt_tokens = {*PLUME_TOKENS, *THINK_TOKENS, *media_tokens}

    def render(self, conversation: list[dict], chat_template: str) -> str:
        """The prompt of one row: control tokens of the user marked with a cut, media as one placeholder each."""
        # Joined as the template would join them, so that a token cannot be forged from two texts.
        text = "".join("\n".join(content_parts([message], "text")) for message in conversation)
        media = [{"type": kind} for kind in ("image", "video") for _ in content_parts(conversation, kind)]
        message = {"role": "user", "content": [*media, {"type": "text", "text": self._mark_cuts(text)}]}
        return self.tokenizer.apply_chat_template([message], chat_template=chat_template, tokenize=False)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt; what stands on the two sides of a cut never becomes one token."""
        return [i for piece in prompt.split(_CUT) for i in self.tokenizer.encode(piece, add_special_tokens=False)]

    def _mark_cuts(self, text: str) -> str:
        """Marks a cut after the first character of every control token: special ones and those of the prompt itself."""
        # Read at every call: the tokens of a loaded folder and those added since must mean the same.
        added = self.tokenizer.added_tokens_decoder.values()
        control = {str(token) for token in added if token.special or str(token) in self._prompt_tokens}
        pattern = "|".join(map(re.escape, sorted(control, key=len, reverse=True)))
        return re.sub(pattern, lambda match: match[0][0] + _CUT + match[0][1:], text.replace(_CUT, ""))


def without_cuts(prompt: str) -> str:
    """A rendered prompt as people read it."""
    return prompt.replace(_CUT, "")
