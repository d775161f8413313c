"""From videos to a playable world: `genie-train`. Needs PyTorch (genie_cpp[train])."""
