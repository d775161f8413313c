"""The paper's Genie in fp32 PyTorch: tokenizer, latent action model, dynamics (arXiv 2402.15391, section 2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.stack import Input, Norm, STStack, by_frame, patchify, unpatchify
from genie_cpp.convert.reference.vq import FiniteScalarQuantizer, VectorQuantizer
from genie_cpp.spec.stack_spec import StackParams


def _quantizer(kind: str, codes: int, length: int) -> FiniteScalarQuantizer | VectorQuantizer:
    return FiniteScalarQuantizer(codes, length) if kind == "fsq" else VectorQuantizer(codes, length)


class Tokenizer(nn.Module):
    """Frames <-> discrete codes. Pixels are float in [0, 1]."""

    def __init__(self, g: GenieConfig) -> None:
        super().__init__()
        c = g.tokenizer
        self.g, self.patch = g, c.patch_size
        pixels = 3 * c.patch_size**2
        self.encoder_input = Input(c.encoder, pixels)
        self.encoder_input_first = Input(c.encoder, pixels) if c.encoder.first_frame == "input" else None
        self.encoder = STStack(c.encoder, g.grid(c.patch_size), g.context_length, c.latent_length)
        self.vq = _quantizer(c.quantizer, c.codebook_size, c.latent_length)
        self.decoder_input = Input(c.decoder, c.latent_length)
        self.decoder_input_first = Input(c.decoder, c.latent_length) if c.decoder.first_frame == "input" else None
        self.decoder = STStack(c.decoder, g.grid(c.patch_size), g.context_length, pixels)

    def latents(self, video_BTHWC: Tensor) -> Tensor:
        x = patchify(video_BTHWC, self.patch) - 0.5
        return self.encoder(by_frame(self.encoder_input, self.encoder_input_first, x))

    def encode(self, video_BTHWC: Tensor) -> Tensor:
        """[B, T, H, W, 3] in [0, 1] -> ids [B, T, P]."""
        return self.vq.encode(self.latents(video_BTHWC))

    def _pixels(self, codes_BTPL: Tensor) -> Tensor:
        x = self.decoder(by_frame(self.decoder_input, self.decoder_input_first, codes_BTPL)) + 0.5
        return unpatchify(x, self.g.frame_height, self.g.frame_width, self.patch)

    def decode(self, ids_BTP: Tensor) -> Tensor:
        """ids [B, T, P] -> pixels [B, T, H, W, 3], not clamped."""
        return self._pixels(F.embedding(ids_BTP, self.vq.codebook))

    def forward(self, video_BTHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (reconstruction, ids, commitment loss)."""
        codes, ids, commitment = self.vq(self.latents(video_BTHWC))
        return self._pixels(codes), ids, commitment


class PairHead(nn.Module):
    """The concatenated means of each frame and the next -> a latent."""

    def __init__(self, c: StackParams, hidden: int, latent: int) -> None:
        super().__init__()
        self.norm = Norm("layernorm", 2 * c.embedding_length, c.norm_epsilon)
        self.up = nn.Linear(2 * c.embedding_length, hidden)
        self.down = nn.Linear(hidden, latent)

    def forward(self, z_BTE: Tensor) -> Tensor:
        pair = torch.cat([z_BTE[:, :-1], z_BTE[:, 1:]], -1)
        return self.down(F.gelu(self.up(self.norm(pair))))


class JoinedHead(nn.Module):
    """The concatenated outputs of all tokens of a frame, from the second frame on -> a latent."""

    def __init__(self, c: StackParams, tokens: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.up = nn.Linear(tokens * c.embedding_length, hidden)
        self.norm = Norm("layernorm", hidden, c.norm_epsilon)
        self.down = nn.Linear(hidden, latent)

    def forward(self, z_BTPE: Tensor) -> Tensor:
        return self.down(self.norm(self.up(z_BTPE[:, 1:].flatten(2))))


class LatentActionModel(nn.Module):
    """Infers which of `action_count` latent actions lies between frames t and t+1."""

    def __init__(self, g: GenieConfig) -> None:
        super().__init__()
        c = g.lam
        self.g, self.patch, self.residual, self.difference = g, c.patch_size, c.residual, c.difference
        pixels = 3 * c.patch_size**2
        grid = g.grid(c.patch_size)
        self.encoder_input = Input(c.encoder, pixels)
        self.encoder_input_first = Input(c.encoder, pixels) if c.encoder.first_frame == "input" else None
        headed = c.head_length is not None
        self.encoder = STStack(c.encoder, grid, g.context_length, 0 if headed else c.latent_length)
        self.head: nn.Module | None = None
        if c.head_length is not None and c.head == "joined":
            self.head = JoinedHead(c.encoder, grid[0] * grid[1], c.head_length, c.latent_length)
        elif c.head_length is not None:
            self.head = PairHead(c.encoder, c.head_length, c.latent_length)
        self.vq = _quantizer(c.quantizer, g.action_count, c.latent_length)
        if c.decoder is not None:
            self.decoder_input = nn.Linear(pixels, c.decoder.embedding_length)
            self.action_input = nn.Linear(c.latent_length, c.decoder.embedding_length)
            self.decoder = STStack(c.decoder, grid, g.context_length, pixels)

    def latents(self, video_BTHWC: Tensor) -> Tensor:
        """[B, T-1, latent]: the mean over the patches of frame t+1, which sees frames 1..t+1.

        With `difference` the encoder sees the T-1 changes between frames instead of the T frames.
        """
        x = patchify(video_BTHWC, self.patch)
        x = x[:, 1:] - x[:, :-1] if self.difference else x - 0.5
        z = self.encoder(by_frame(self.encoder_input, self.encoder_input_first, x)).float()
        if isinstance(self.head, JoinedHead):
            return self.head(z)
        z = z.mean(2)
        if self.head is not None:
            return self.head(z)
        return z if self.difference else z[:, 1:]

    def infer(self, video_BTHWC: Tensor) -> Tensor:
        """[B, T, H, W, 3] in [0, 1] -> actions [B, T-1]."""
        return self.vq.encode(self.latents(video_BTHWC))

    def predict(self, video_BTHWC: Tensor, codes_BTL: Tensor) -> Tensor:
        """Frames 1..T-1 and the code that follows each -> frames 2..T."""
        past = video_BTHWC[:, :-1]
        x = self.decoder_input(patchify(past, self.patch) - 0.5) + self.action_input(codes_BTL)[:, :, None]
        change = unpatchify(self.decoder(x), self.g.frame_height, self.g.frame_width, self.patch)
        return past + change if self.residual else change + 0.5

    def forward(self, video_BTHWC: Tensor, seen_BTHWC: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (predicted frames 2..T, actions, commitment loss); the encoder sees `seen_BTHWC` if given."""
        codes, ids, commitment = self.vq(self.latents(video_BTHWC if seen_BTHWC is None else seen_BTHWC))
        return self.predict(video_BTHWC, codes), ids, commitment


class Dynamics(nn.Module):
    """Logits of the next frame's tokens from past tokens and latent actions (MaskGIT)."""

    def __init__(self, g: GenieConfig) -> None:
        super().__init__()
        c = g.dynamics.stack
        self.g, self.mask_id = g, g.tokenizer.codebook_size
        self.token_embd = nn.Embedding(g.vocabulary + 1, c.embedding_length)
        nn.init.normal_(self.token_embd.weight, std=0.02)
        film = g.action_count if g.dynamics.conditioning == "film" else None
        self.action_embd = None if film else nn.Embedding(g.action_count, c.embedding_length)
        if self.action_embd is not None:
            nn.init.normal_(self.action_embd.weight, std=0.02)
        self.stack = STStack(c, g.grid(g.tokenizer.patch_size), g.context_length, g.vocabulary, film)

    def embed(self, ids_BTP: Tensor, actions_BT: Tensor) -> Tensor:
        """actions_BT[:, t] in 0..action_count-1 produced frame t; -1 means none (the first frame of a window). With
        next-frame prediction it produces the frame after t."""
        tokens = self._tokens(ids_BTP)
        if self.action_embd is None:
            return tokens
        action = self.action_embd(actions_BT.clamp(min=0)) * (actions_BT >= 0)[..., None]
        return tokens + action[:, :, None]

    def _tokens(self, ids_BTP: Tensor) -> Tensor:
        factors = self.g.dynamics.factor_count
        if factors == 1:
            return self.token_embd(ids_BTP)
        size = self.g.vocabulary // factors
        digits = [self.token_embd(ids_BTP // size**k % size + k * size) for k in range(factors)]
        masked = (ids_BTP == self.mask_id)[..., None]
        return torch.where(masked, self.token_embd.weight[-1], sum(digits[1:], digits[0]))

    def forward(self, ids_BTP: Tensor, actions_BT: Tensor) -> Tensor:
        """ids, `mask_id` for unknown tokens -> logits [B, T, P, vocabulary]."""
        return self.stack(self.embed(ids_BTP, actions_BT), row_BT=self._rows(actions_BT))

    def _rows(self, actions_BT: Tensor) -> Tensor:
        return torch.where(actions_BT < 0, self.g.action_count, actions_BT)

    def teacher_forced(self, clean_BTP: Tensor, masked_BTP: Tensor, actions_BT: Tensor) -> Tensor:
        """Logits for `masked_BTP` where each masked frame sees the *clean* frames before it, as in generation.

        Both versions run as 2T frames in one pass: masked frame t sees the clean frames < t and itself.
        """
        T = clean_BTP.shape[1]
        ids, actions = torch.cat([clean_BTP, masked_BTP], 1), torch.cat([actions_BT, actions_BT], 1)
        before = torch.ones(T, T, dtype=torch.bool, device=ids.device).tril(-1)
        itself = torch.eye(T, dtype=torch.bool, device=ids.device)
        nothing = torch.zeros_like(itself)
        visible = torch.cat([torch.cat([before | itself, nothing], 1), torch.cat([before, itself], 1)])
        time = torch.arange(T, device=ids.device).repeat(2)
        return self.stack(self.embed(ids, actions), visible, time, T, self._rows(actions))


class Genie(nn.Module):
    """The three parts of one native checkpoint."""

    def __init__(self, config: GenieConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config)
        self.lam = LatentActionModel(config)
        self.dynamics = Dynamics(config)
