# SPDX-License-Identifier: GPL-3.0-or-later
"""The training suite: it adapts anydressing_core to diffusers and accelerate, and never meets the nodes."""
