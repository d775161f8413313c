"""Gymnasium (extra `gym`): importing this registers the environment.

import gymnasium, genie_cpp.gym
env = gymnasium.make("genie_cpp/World-v0", model="world.gguf", prompt="picture.png")
"""

from __future__ import annotations

import shutil
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from genie_cpp.catalog.bundled import locate
from genie_cpp.errors import ImageError, StateError
from genie_cpp.frames import fit, load_image
from genie_cpp.model import Frame, Model
from genie_cpp.play import halfblocks
from genie_cpp.play.keyboard import default_keys
from genie_cpp.play.session import Prompt
from genie_cpp.sampler import Sampler
from genie_cpp.world import World

ID = "genie_cpp/World-v0"
_models: weakref.WeakValueDictionary[tuple[Any, ...], Model] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class WorldEnv(gymnasium.Env[Frame, np.int64]):
    """A world as an environment: observations are frames uint8 [H, W, 3], actions are latent actions, rewards are 0.

    model: a Genie GGUF, an open Model, a bundled world's name, or None. Environments in one process share it.
    prompt: a picture's path, or uint8 [H, W, 3]; None: the model's first start picture. `reset(options={"prompt": …})`
    starts from another. An episode never ends by itself: give `make` a max_episode_steps.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 10}  # noqa: RUF012 (so in Env)

    def __init__(
        self,
        model: str | Path | Model | None = None,
        prompt: str | Path | NDArray[np.uint8] | None = None,
        render_mode: str | None = None,
        steps: int | None = None,
        temperature: float | None = None,
        threads: int | None = None,
        backend: str = "auto",
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise StateError(f"render_mode must be one of {', '.join(self.metadata['render_modes'])}")
        self.render_mode = render_mode
        self.model = model if isinstance(model, Model) else shared_model(model, threads, backend)
        s, hp = self.model.sampler, self.model.info
        sampler = Sampler(
            s.steps if steps is None else steps, s.temperature if temperature is None else temperature, s.order, s.noise
        )
        self.world = World(self.model, sampler)
        self.observation_space = spaces.Box(0, 255, (hp.frame_height, hp.frame_width, 3), np.uint8)
        self.action_space = spaces.Discrete(hp.choices)
        self._prompt = prompt
        self._began = False  # whether the terminal was cleared for render_mode "human"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """options: {"prompt": …} as in __init__. Raises ImageError."""
        super().reset(seed=seed)
        prompt = (options or {}).get("prompt", self._prompt)
        if prompt is None:
            beside = Prompt.beside(self.model)
            if beside is None:
                raise ImageError("there is no picture to start from", "give prompt=, a path or uint8 [H, W, 3]")
            prompt = beside.picture
        picture = load_image(Path(prompt)) if isinstance(prompt, (str, Path)) else np.asarray(prompt)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ImageError(f"a prompt must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
        hp = self.model.info
        frame = self.world.reset(fit(picture, hp.frame_width, hp.frame_height), int(self.np_random.integers(1 << 63)))
        self._show(frame)
        return frame, self._info()

    def step(self, action: np.int64 | int | str) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Raises ActionError, and StateError before `reset`."""
        frame = self.world.step(action)
        self._show(frame)
        return frame, 0.0, False, False, self._info()

    def render(self) -> Any:
        """uint8 [H, W, 3] (`rgb_array`) or half-blocks as text (`ansi`). `human` draws without this call."""
        if self.render_mode == "rgb_array":
            return self.world.frame
        if self.render_mode == "ansi":
            return "\n".join(halfblocks.text(self.world.frame)) + "\n"
        return None

    def get_keys_to_action(self) -> dict[tuple[str, ...], int]:
        """One-character keys for `gymnasium.utils.play`: digits and WASD."""
        keys = default_keys(self.model.info.choices, self.model.info.action_names)
        return {(key,): action for key, action in keys.items() if len(key) == 1}

    def close(self) -> None:
        self._began = False

    def _show(self, frame: Frame) -> None:
        if self.render_mode != "human":
            return
        columns, rows = shutil.get_terminal_size()
        lines = halfblocks.text(halfblocks.scaled(frame, columns, rows - 1))
        start = "\x1b[H" if self._began else "\x1b[2J\x1b[H"
        self._began = True
        sys.stdout.write(start + "\n".join(lines) + "\n")
        sys.stdout.flush()

    def _info(self) -> dict[str, Any]:
        return {"tokens": self.world.tokens, "frame_number": self.world.n_frames}


def shared_model(path: str | Path | None, threads: int | None, backend: str = "auto") -> Model:
    """A model that another environment already has open, else a newly opened one. Raises what `Model.open` raises."""
    file, called = locate(path)
    stat = file.stat()
    key = (file.resolve(), threads, backend, stat.st_mtime_ns, stat.st_size)
    with _opening:
        model = _models.get(key)
        if model is None:
            model = _models[key] = Model.open(called or file, threads, backend)
        return model


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point="genie_cpp.gym:WorldEnv")
